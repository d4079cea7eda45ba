//! Mutations for the short run: blind ones, but the same in every run.

/// Numbers without pattern, the same on every machine (xorshift).
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, or 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

/// A changed copy of `bytes`, at most `longest_bytes` long: one to four changes of single bytes, numbers, runs or words.
pub fn mutate(bytes: &[u8], words: &[&[u8]], longest_bytes: usize, random: &mut Random) -> Vec<u8> {
    const EXTREMES: [[u8; 4]; 6] =
        [[0; 4], [0xff; 4], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 0x80], [0, 0, 0, 1], [1, 0, 0, 0]];
    let mut changed = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        // Half of the changes strike the first bytes, which hold the numbers that sizes are computed from.
        let reach = if random.below(2) == 0 { changed.len().min(200) } else { changed.len() };
        let at = random.below(reach);
        match random.below(6) {
            0 | 1 => {
                if let Some(byte) = changed.get_mut(at) {
                    *byte = random.below(256) as u8;
                }
            }
            2 => {
                let extreme = EXTREMES[random.below(EXTREMES.len())];
                let width = 1 << random.below(3);
                changed.iter_mut().skip(at).zip(&extreme[..width]).for_each(|(byte, &value)| *byte = value);
            }
            3 => changed.truncate(at),
            4 => {
                let end = (at + 1 + random.below(32)).min(changed.len());
                let run = changed[at.min(end)..end].to_vec();
                let to = random.below(changed.len());
                changed.splice(to..to, run);
            }
            _ => {
                let word = if words.is_empty() { &b"\0"[..] } else { words[random.below(words.len())] };
                let end = if random.below(2) == 0 { at } else { (at + word.len()).min(changed.len()) };
                changed.splice(at.min(end)..end, word.iter().copied());
            }
        }
    }
    changed.truncate(longest_bytes);
    changed
}
