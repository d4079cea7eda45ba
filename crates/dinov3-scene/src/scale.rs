//! From samples to the scale on which 0 is black and 1 is white: declared, never guessed.

/// What the samples of a scene mean.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Scale {
    /// 8-bit levels of a picture: 255 is white.
    U8,
    /// `low` is black and `high` is white; what lies beyond is clipped.
    Range {
        /// The sample that is black.
        low: f64,
        /// The sample that is white, above `low`.
        high: f64,
    },
}

impl Scale {
    /// Reads `u8` or `range LOW,HIGH`.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "expected u8, or range LOW,HIGH: the samples that are black and white".to_string();
        if text == "u8" {
            return Ok(Self::U8);
        }
        let rest = text.strip_prefix("range").ok_or_else(wrong)?;
        let (low, high) = rest.trim_start_matches([' ', ':', '=']).split_once(',').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let (low, high) = number(low).zip(number(high)).ok_or_else(wrong)?;
        if low >= high {
            return Err(format!("range {low},{high}: the first must be below the second"));
        }
        Ok(Self::Range { low, high })
    }

    /// A sample on the scale of 0 to 1, in f64 until the end; NaN stays NaN.
    pub(crate) fn unit(self, sample: f64) -> f32 {
        match self {
            Self::U8 => (sample / 255.0) as f32,
            Self::Range { low, high } => ((sample - low) / (high - low)).clamp(0.0, 1.0) as f32,
        }
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::U8 => formatter.write_str("u8"),
            Self::Range { low, high } => write!(formatter, "range {low},{high}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_read_and_written_alike() {
        for text in ["u8", "range 0,3000", "range -0.5,0.25"] {
            assert_eq!(Scale::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Scale::parse("range:0,1"), Ok(Scale::Range { low: 0.0, high: 1.0 }));
        for wrong in
            ["", "u16", "range", "range 1", "range 1,1", "range 2,1", "range a,b", "range 0,inf", "range 0,nan"]
        {
            assert!(Scale::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_beyond_the_range_are_clipped() {
        let scale = Scale::Range { low: 1000.0, high: 4000.0 };
        let values = [0.0, 1000.0, 2500.0, 4000.0, 65535.0].map(|sample| scale.unit(sample));
        assert_eq!(values, [0.0, 0.0, 0.5, 1.0, 1.0]);
        assert!(scale.unit(f64::NAN).is_nan());
    }
}
