"""What paired runs show: a ratio, how sure it is, and whether a gate is reached.

The figure is the ratio of the medians. Its interval is a percentile bootstrap over the pairs: 10,000 times as many pairs are
drawn with repetition, and the middle 95 % of the ratios of their medians is kept. The draws are seeded.
"""

import numpy as np

ENOUGH_PAIRS = 9
DRAWS = 10_000
METHOD = "paired percentile bootstrap of the ratio of medians, 95 %, 10000 draws, seed 0"


def interval(statistic, pairs: np.ndarray) -> tuple[float, float] | None:
    """95 % of `statistic` of resampled rows of `pairs`, or nothing from too few of them."""
    if len(pairs) < ENOUGH_PAIRS:
        return None
    rng = np.random.default_rng(0)
    draws = [statistic(pairs[rng.integers(len(pairs), size=len(pairs))]) for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def ratio_of_medians(pairs: np.ndarray) -> float:
    """Of the first column over the second."""
    return float(np.median(pairs[:, 0]) / np.median(pairs[:, 1]))


def median(values: np.ndarray) -> float:
    return float(np.median(values))


def worst_over_best(turns: np.ndarray) -> float:
    """Of columns that are points of a curve."""
    medians = np.median(turns, axis=0)
    return float(medians.max() / medians.min())


def summarise(statistic, pairs, gate: float, stretch: float, lower_is_better: bool = False) -> dict:
    pairs = np.asarray(pairs, np.float64)
    value, bounds = statistic(pairs), interval(statistic, pairs)
    return {
        "value": value,
        "interval": bounds,
        "interval_method": METHOD,
        "pairs": len(pairs),
        "verdict": verdict(value, bounds, gate, stretch, lower_is_better),
    }


def verdict(value: float, bounds: tuple[float, float] | None, gate: float, stretch: float, lower_is_better: bool) -> str:
    """`stretch`, `reached`, `undecided` (below the gate, but within what chance explains), `missed`, `too few pairs`."""
    if bounds is None:
        return "too few pairs"
    low, high = bounds
    if lower_is_better:
        value, high, gate, stretch = -value, -low, -gate, -stretch
    if value >= stretch:
        return "stretch"
    if value >= gate:
        return "reached"
    return "undecided" if high >= gate else "missed"
