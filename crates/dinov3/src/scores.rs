//! From class scores to the classes that a person reads.

/// One class of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScore {
    /// The class, from 0.
    pub index: usize,
    /// Its score as the head gives it.
    pub logit: f32,
    /// Its share of the softmax over all classes, 0 to 1.
    pub probability: f64,
}

/// The `count` best classes, best first; of equal scores the one with the lower index. All of them if there are fewer.
///
/// Probabilities are a softmax in f64 with the maximum subtracted, summed in the order of the classes: the same bits on
/// every machine.
pub fn top_k(logits: &[f32], count: usize) -> Vec<ClassScore> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let share = |logit: f32| (f64::from(logit) - f64::from(largest)).exp();
    let sum: f64 = logits.iter().map(|&logit| share(logit)).sum();
    // What is not a number comes last, in whichever sign it has.
    let rank = |index: &usize| if logits[*index].is_nan() { f32::NEG_INFINITY } else { logits[*index] };
    // Adding zero makes one of the two zeros, which are equal.
    let better = |a: &usize, b: &usize| (rank(b) + 0.0).total_cmp(&(rank(a) + 0.0)).then(a.cmp(b));
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let count = count.min(order.len());
    if (1..order.len()).contains(&count) {
        order.select_nth_unstable_by(count - 1, better);
    }
    order.truncate(count);
    order.sort_unstable_by(better);
    let score = |index: usize| ClassScore { index, logit: logits[index], probability: share(logits[index]) / sum };
    order.into_iter().map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(logits: &[f32], count: usize) -> Vec<usize> {
        top_k(logits, count).iter().map(|score| score.index).collect()
    }

    #[test]
    fn the_best_come_first_and_equal_ones_by_index() {
        assert_eq!(indices(&[0.0, 3.0, 1.0, 3.0, -1.0, 1.0], 4), [1, 3, 2, 5]);
        assert_eq!(indices(&[-0.0, 0.0], 2), [0, 1], "the two zeros are equal");
        assert_eq!(indices(&[1.0, 2.0], 9), [1, 0]);
        assert_eq!(indices(&[1.0, 2.0], 0), [0; 0]);
        assert_eq!(indices(&[], 5), [0; 0]);
    }

    #[test]
    fn probabilities_are_a_softmax() {
        let scores = top_k(&[1.0, 2.0, 3.0], 3);
        // torch.tensor([1., 2., 3.], dtype=torch.float64).softmax(0)
        for (score, expected) in
            scores.iter().zip([0.665_240_955_774_821_7, 0.244_728_471_054_797_6, 0.090_030_573_170_380_46])
        {
            assert!((score.probability - expected).abs() < 1e-15, "{score:?}");
        }
        // Scores whose exponentials no f64 holds.
        let scores = top_k(&[3e38, -3e38, 3e38], 3);
        assert_eq!(scores.iter().map(|score| score.probability).collect::<Vec<_>>(), [0.5, 0.5, 0.0]);
    }

    #[test]
    fn what_is_no_number_comes_last_and_nothing_panics() {
        assert_eq!(indices(&[f32::NAN, 1.0, -f32::NAN, 2.0], 2), [3, 1]);
        assert_eq!(indices(&[f32::NAN; 3], 2), [0, 1]);
        assert!(top_k(&[f32::INFINITY, 1.0], 1)[0].probability.is_nan());
    }
}
