//! Which values are dark and bright.

/// Part of the values that may lie beyond the colours at each end, so that one odd patch does not grey out the rest.
const BEYOND: f64 = 0.01;

/// The 1st and the 99th percentile, interpolated between neighbours as NumPy does; (0, 0) of nothing.
pub fn percentile_range(values: &[f32]) -> (f32, f32) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let at = |part: f64| {
        let place = part * sorted.len().saturating_sub(1) as f64;
        let value = |index: f64| sorted.get(index as usize).copied().unwrap_or(0.0);
        let (below, above) = (value(place.floor()), value(place.ceil()));
        (f64::from(below) + (f64::from(above) - f64::from(below)) * place.fract()) as f32
    };
    (at(BEYOND), at(1.0 - BEYOND))
}

/// Where a value lies in a range, from 0 to 1; nowhere if the range is empty.
pub fn place_in((low, high): (f32, f32), value: f32) -> Option<f32> {
    let (low, high) = (f64::from(low), f64::from(high));
    (high > low).then(|| ((f64::from(value) - low) / (high - low)).clamp(0.0, 1.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_interpolated() {
        let values: Vec<f32> = (0..=200).rev().map(|value| value as f32).collect();
        assert_eq!(percentile_range(&values), (2.0, 198.0));
        assert_eq!(percentile_range(&[3.0]), (3.0, 3.0));
        assert_eq!(percentile_range(&[0.0, 1.0]), (0.01, 0.99));
        assert_eq!(percentile_range(&[]), (0.0, 0.0));
    }
}
