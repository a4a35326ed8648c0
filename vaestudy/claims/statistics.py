"""Permutation tests, Holm's rule and what a number of models can show, each over many samples at once.

Every test takes a stack of samples (row = one sample, column = one independently trained model), because the question
whether another machine would give the same verdict runs the same test a thousand times. The relabellings are shared by
the rows, which makes each test one matrix product. Where there are no more than 99,999 all are listed (the exact test),
else 99,999 are drawn, the observed one among them.
"""

from functools import lru_cache
from itertools import combinations, product
from math import comb, prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

DRAWS = 99_999
LEVEL = 0.05
_CHUNK = 4_000_000  # numbers held at once: 16 MB in float32

Pieces = tuple[tuple[int, ...], tuple[int, ...]]
Tails = tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]


class Estimate(NamedTuple):
    """An effect with its standard error and degrees of freedom, one of each a row."""

    effect: Float[np.ndarray, " rows"]
    se: Float[np.ndarray, " rows"]
    df: Float[np.ndarray, " rows"]


def welch(a: Float[np.ndarray, "rows n"], b: Float[np.ndarray, "rows m"]) -> Estimate:
    """The difference of two means, mean(a) - mean(b), without assuming equal spread (Welch 1947)."""
    parts = [values.var(axis=1, ddof=1) / values.shape[1] for values in (a, b)]
    se = np.sqrt(parts[0] + parts[1])
    weights = parts[0] ** 2 / (a.shape[1] - 1) + parts[1] ** 2 / (b.shape[1] - 1)
    plain = np.full(len(a), a.shape[1] + b.shape[1] - 2.0)
    return Estimate(a.mean(axis=1) - b.mean(axis=1), se, np.divide(se**4, weights, out=plain, where=weights > 0))


def mean_estimate(values: Float[np.ndarray, "rows n"]) -> Estimate:
    """The mean of one number a model."""
    n = values.shape[1]
    return Estimate(values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(n), np.full(len(values), n - 1.0))


def two_setting_p(
    a: Float[np.ndarray, "rows n"], b: Float[np.ndarray, "rows m"], pieces: Pieces | None = None, draws: int = DRAWS
) -> Tails:
    """P2: one-sided p of "a is above b" and of "a is below b", the larger one of Welch's t-test and its permutation.

    The t-test trusts in bell shapes, permuting in equal spread: at a ratio of 2.5 between the standard deviations, as
    the pilot had, ten models against ten pass .002 by it in 38 of 10,000 runs without a difference, by the larger p in
    20. At equal spread the larger p costs 1 of 100 in power at .01 (tests/benchmarks).
    """
    effect, se, df = welch(a, b)
    t = np.divide(effect, se, out=np.sign(effect) * 1e9, where=se > 0)
    up, down = permutation_p(a, b, pieces, draws)
    return np.maximum(up, stats.t.sf(t, df)), np.maximum(down, stats.t.cdf(t, df))


def permutation_p(
    a: Float[np.ndarray, "rows n"], b: Float[np.ndarray, "rows m"], pieces: Pieces | None = None, draws: int = DRAWS
) -> Tails:
    """One-sided p of "a is above b" and of "a is below b": Welch's t with the labels permuted over the models.

    `pieces` names the piece of the run that each model of a and of b comes from, within which labels are permuted. With
    as many models on both sides Welch's t rises with the sum over `a` alone, which saves the rest.
    """
    n, m = a.shape[1], b.shape[1]
    values = np.concatenate([a, b], axis=1)
    values = values - values.mean(axis=1, keepdims=True)
    labels = _labellings(*(pieces or ((0,) * n, (0,) * m)), draws)
    return _tails(values, labels, None if n == m else lambda rows, sums: _welch_t(rows, sums, labels, n, m))


def labelling_count(pieces_a: tuple[int, ...], pieces_b: tuple[int, ...]) -> int:
    """In how many ways the labels can be permuted within pieces: no p is smaller than one over this."""
    sizes = [(pieces_a.count(piece), pieces_b.count(piece)) for piece in set(pieces_a + pieces_b)]
    return prod(comb(n + m, n) for n, m in sizes)


def sign_flip_p(values: Float[np.ndarray, "rows n"], draws: int = DRAWS) -> Tails:
    """One-sided p of "the mean is above 0" and "below 0": every model's value may change its sign."""
    return _tails(values, _signs(values.shape[1], draws))


def slope_p(
    values: Float[np.ndarray, "rows n settings"], x: Float[np.ndarray, " settings"], draws: int = DRAWS
) -> Tails:
    """One-sided p of "the slope of values on x is above 0" and "below 0": x is permuted within each seed."""
    centred = values - values.mean(axis=2, keepdims=True)
    return _tails(centred.reshape(len(values), -1), _orders(tuple(x - x.mean()), values.shape[1], draws))


def _tails(values, weights, statistic=None) -> Tails:
    """The shares of relabellings whose statistic reaches the observed one (the first) from above and from below."""
    scale = np.sqrt((values**2).mean(axis=1, keepdims=True))
    values = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0).astype(np.float32)
    counts = []
    for rows in np.array_split(values, -(-len(values) // max(1, _CHUNK // len(weights)))):
        results = rows @ weights.T
        if statistic is not None:
            results = statistic(rows, results)
        observed, tolerance = results[:, :1], 1e-5 * (1 + np.abs(results[:, :1]))  # equal sums in another order
        reached = results >= observed - tolerance, results <= observed + tolerance
        counts.append([np.count_nonzero(side, axis=1) for side in reached])
    return tuple(np.concatenate(counts, axis=1) / len(weights))


def _welch_t(rows, sums, labels, n: int, m: int):
    """Welch's t under every labelling of centred rows, whose sums over a are given."""
    squares = rows**2 @ labels.T
    total = (rows**2).sum(axis=1, keepdims=True)
    spread_a = np.maximum(squares - sums**2 / n, 0) / (n - 1) / n
    spread_b = np.maximum(total - squares - sums**2 / m, 0) / (m - 1) / m
    return sums * (1 / n + 1 / m) / np.sqrt(spread_a + spread_b + 1e-10)


@lru_cache(maxsize=16)
def _labellings(pieces_a: tuple[int, ...], pieces_b: tuple[int, ...], draws: int):
    """Which models are called a, one labelling a row, the observed one first; within pieces."""
    pieces, observed = np.array(pieces_a + pieces_b), np.repeat([1, 0], [len(pieces_a), len(pieces_b)])
    members = [np.flatnonzero(pieces == piece) for piece in np.unique(pieces)]
    if labelling_count(pieces_a, pieces_b) <= draws:
        # A piece's models of a come first in it, so that the first combination is the observed one.
        choices = [list(combinations(models, int(observed[models].sum()))) for models in members]
        chosen = np.array([sum(choice, ()) for choice in product(*choices)], dtype=np.int64)
        labels = np.zeros((len(chosen), len(observed)), np.float32)
        np.put_along_axis(labels, chosen, 1, axis=1)
        return labels
    rng = np.random.default_rng(0)
    labels = np.tile(observed, (draws + 1, 1)).astype(np.float32)
    for models in members:
        labels[1:, models] = rng.permuted(labels[1:, models], axis=1)
    return labels


@lru_cache(maxsize=8)
def _signs(n: int, draws: int):
    """All signs of n values, or `draws` of them; none changed first."""
    if 2**n <= draws:
        return np.array(list(product([1, -1], repeat=n)), np.float32)
    signs = np.random.default_rng(0).choice(np.array([1, -1], np.float32), (draws + 1, n))
    signs[0] = 1
    return signs


@lru_cache(maxsize=8)
def _orders(x: tuple[float, ...], seeds: int, draws: int):
    """The settings of every seed in random order, as they are first."""
    orders = np.tile(np.array(x, np.float32), (draws + 1, seeds, 1))
    orders[1:] = np.random.default_rng(0).permuted(orders[1:], axis=2)
    return orders.reshape(draws + 1, -1)


def holm(p: list[float], size: int | None = None) -> tuple[list[float], list[float]]:
    """Holm's adjusted p of each claim, and the level that its own p was held against.

    `size`: how many claims the family has, those not tested included. A claim that is not rejected was held against the
    level at which the rule stopped.
    """
    size, order, ranks = size or len(p), np.argsort(p, kind="stable"), np.arange(len(p))
    adjusted, levels = np.empty((2, len(p)))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.array(p)[order] * (size - ranks)))
    levels[order] = LEVEL / (size - np.minimum(ranks, (adjusted <= LEVEL).sum()))
    return adjusted.tolist(), levels.tolist()


def smallest_visible(se: float, df: float, level: float, power: float = 0.8) -> float:
    """The smallest true effect that a one-sided t-test at `level` finds in 80 of 100 runs (noncentral t).

    A permutation test of as many models has this power too, as long as it can reach the level at all.
    """
    limit = stats.t.isf(level, df)
    return float(se * optimize.brentq(lambda shift: stats.nct.sf(limit, df, shift) - power, 0, 4 * limit + 10))
