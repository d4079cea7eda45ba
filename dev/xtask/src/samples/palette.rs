//! Few colours instead of many: a picture with a palette takes a third of the space.

use std::collections::BTreeMap;

use dinov3_picture::RgbPicture;

type Level3 = [u8; 3];

/// The picture in at most `count` colours, chosen for it, with the colours.
pub fn reduce(picture: &RgbPicture, count: usize) -> RgbPicture {
    let mut frequency: BTreeMap<Level3, u64> = BTreeMap::new();
    for pixel in picture.data().as_chunks::<3>().0 {
        *frequency.entry(*pixel).or_default() += 1;
    }
    let colours: Vec<(Level3, u64)> = frequency.into_iter().collect();
    let mut palette = median_cut(colours.clone(), count);
    for _ in 0..6 {
        palette = settle(&colours, &palette);
    }
    let nearest: BTreeMap<Level3, Level3> =
        colours.iter().map(|&(colour, _)| (colour, palette[nearest(&palette, colour)])).collect();
    let data = picture.data().as_chunks::<3>().0.iter().flat_map(|pixel| nearest[pixel]).collect();
    RgbPicture::new(picture.width_px(), picture.height_px(), data).expect("the size is that of a picture")
}

/// Cuts the box with the largest spread in two until there are enough; the means of the boxes.
fn median_cut(colours: Vec<(Level3, u64)>, count: usize) -> Vec<Level3> {
    let mut boxes = vec![colours];
    while boxes.len() < count {
        let spread = |colours: &Vec<(Level3, u64)>| {
            (0..3).map(|axis| (variance(colours, axis), axis)).max().expect("there are three axes")
        };
        let Some(widest) = (0..boxes.len()).max_by_key(|&index| spread(&boxes[index])) else { break };
        let (variance, axis) = spread(&boxes[widest]);
        if variance == 0 {
            break;
        }
        let mut lower = boxes.swap_remove(widest);
        lower.sort_by_key(|(colour, _)| (colour[axis], *colour));
        let middle = u64::from(mean(&lower)[axis]);
        let cut = lower.partition_point(|(colour, _)| u64::from(colour[axis]) <= middle).clamp(1, lower.len() - 1);
        let upper = lower.split_off(cut);
        boxes.extend([lower, upper]);
    }
    boxes.iter().map(|colours| mean(colours)).collect()
}

/// Each colour of the palette becomes the mean of the colours that are nearest to it.
fn settle(colours: &[(Level3, u64)], palette: &[Level3]) -> Vec<Level3> {
    let mut groups = vec![Vec::new(); palette.len()];
    for &(colour, weight) in colours {
        groups[nearest(palette, colour)].push((colour, weight));
    }
    groups.iter().zip(palette).map(|(group, &old)| if group.is_empty() { old } else { mean(group) }).collect()
}

fn nearest(palette: &[Level3], colour: Level3) -> usize {
    let distance =
        |other: &Level3| (0..3).map(|axis| u32::from(other[axis].abs_diff(colour[axis])).pow(2)).sum::<u32>();
    (0..palette.len()).min_by_key(|&index| distance(&palette[index])).unwrap_or(0)
}

fn mean(colours: &[(Level3, u64)]) -> Level3 {
    let total: u64 = colours.iter().map(|(_, weight)| weight).sum();
    std::array::from_fn(|axis| {
        let sum: u64 = colours.iter().map(|(colour, weight)| weight * u64::from(colour[axis])).sum();
        ((sum + total / 2) / total) as u8
    })
}

/// Sum of squared distances from the mean, in whole numbers so that every machine cuts alike.
fn variance(colours: &[(Level3, u64)], axis: usize) -> u64 {
    let middle = mean(colours)[axis];
    colours.iter().map(|(colour, weight)| weight * u64::from(colour[axis].abs_diff(middle)).pow(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_colours_stay_and_many_become_few() {
        let data: Vec<u8> = (0..60).map(|index| (index % 4 * 60) as u8).collect();
        let picture = RgbPicture::new(5, 4, data).unwrap();
        assert_eq!(reduce(&picture, 16), picture);
        let data: Vec<u8> = (0..3 * 64 * 64).map(|index| (index * 7919 % 251) as u8).collect();
        let reduced = reduce(&RgbPicture::new(64, 64, data).unwrap(), 16);
        let mut left: Vec<&[u8; 3]> = reduced.data().as_chunks::<3>().0.iter().collect();
        left.sort();
        left.dedup();
        assert!(left.len() <= 16);
    }
}
