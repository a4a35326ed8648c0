"""The β-VAE paper's disentanglement metric: a linear classifier tells which factor pairs of images share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int

from vaestudy.errors import InputError
from vaestudy.metrics.classifiers import Classifier, accuracies
from vaestudy.metrics.table import CHUNK, Codes, Labels, Table


def higgins_score(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    classes: Sequence[int] | None = None,
    pairs: int = 64,
    train: int = 10_000,
    test: int = 5_000,
    classifier: Classifier = "logistic",
    standardise: bool = False,
) -> float:
    """The disentanglement metric of the β-VAE paper: an accuracy in [0, 1] whose chance level is 1/classes.

    Higgins et al. (2017), sec. 3: a linear classifier tells which factor was shared by `pairs` pairs of images from
    the mean absolute difference of their codes, which are posterior means. It learns from `train` such averages and
    is tested on `test`. The paper's classes on dSprites are scale, orientation, x and y (shape varies but is no class)
    and its classifier is "adagrad"; disentanglement_lib takes all factors (`classes=None`), 64 pairs and "logistic".
    The paper leaves the number of pairs open, and entangled codes score anything between chance and 1 as it grows: see
    `higgins_curve`. The classifier's penalty sees the scale: codes of a thousandth of the prior's are at chance unless
    `standardise`d. Raises InputError for bad tables or settings.
    """
    settings = {"train": train, "test": test, "classifier": classifier, "standardise": standardise}
    return float(higgins_curve([codes], factors, seed=seed, pairs=[pairs], classes=classes, **settings)[0, 0])


def higgins_curve(
    codes: Sequence[Float[np.ndarray, "n _"]],
    factors: Labels,
    *,
    seed: int,
    pairs: Sequence[int] = (1, 2, 5, 10, 20, 50, 100, 200),
    classes: Sequence[int] | None = None,
    train: int = 10_000,
    test: int = 5_000,
    classifier: Classifier = "logistic",
    standardise: bool = False,
) -> Float[np.ndarray, "codes pairs"]:
    """`higgins_score` of several codes of the same images for several numbers of pairs.

    All scores share one draw of images: a point of few pairs is made of the first pairs of a point of many.
    """
    if not pairs or min(pairs) < 1 or min(train, test) < 1:
        raise InputError(f"pairs, train and test must be 1 or more, not {list(pairs)}, {train} and {test}")
    tables, rng = [Table(code, factors) for code in codes], np.random.default_rng(seed)
    shared = np.asarray(tables[0].columns(classes))
    labels = rng.integers(len(shared), size=train + test)
    sizes = np.unique(pairs)
    first, second = _pairs(tables[0], shared[labels], int(sizes[-1]), rng)
    live = [table.live_codes for table in tables]
    widths = np.array([code.shape[1] for code in live])
    scores = np.empty((len(codes), len(sizes)))
    for width in np.unique(widths):  # codes of one width are one stack of problems to the classifier
        members = np.flatnonzero(widths == width)
        points = np.concatenate([_mean_differences(live[i], first, second, sizes) for i in members])
        parts = points[:, :train], labels[:train], points[:, train:], labels[train:]
        accuracy = accuracies(*parts, seed=seed, classifier=classifier, standardise=standardise)
        scores[members] = rearrange(accuracy, "(codes pairs) -> codes pairs", pairs=len(sizes))
    return scores[:, np.searchsorted(sizes, pairs)]


class HigginsReport(NamedTuple):
    """Scores of every model and classifier seed, and both ways to sum them up (mean and standard deviation)."""

    scores: Float[np.ndarray, "models seeds"]
    mean: float
    std: float
    best_mean: float
    best_std: float


def higgins_report(
    codes: Sequence[Float[np.ndarray, "n _"]],
    factors: Labels,
    *,
    seed: int,
    classifier_seeds: int = 3,
    pairs: int = 64,
    **settings,
) -> HigginsReport:
    """The paper's reporting rule over models that differ by their seed, beside the mean of all scores.

    Higgins et al. (2017), sec. A.4: 10 models x 3 classifiers; the lower half of the 30 scores is thrown away
    ("best"), which flatters. `settings` are those of `higgins_curve`.
    """
    if len(codes) < 1 or classifier_seeds < 1:
        raise InputError("higgins_report needs the codes of one model or more, and classifier_seeds of 1 or more")
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(classifier_seeds)]
    scores = np.concatenate([higgins_curve(codes, factors, seed=s, pairs=[pairs], **settings) for s in seeds], axis=1)
    best = np.sort(scores, axis=None)[scores.size // 2 :]
    return HigginsReport(scores, *(float(f(part)) for part in (scores, best) for f in (np.mean, np.std)))


def _pairs(
    table: Table, shared: Int[np.ndarray, " points"], pairs: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "points pairs"], Int[np.ndarray, "points pairs"]]:
    """Rows of images that agree, within a pair, in the factor of their point."""
    first = rng.integers(len(table), size=(len(shared), pairs))
    second = np.empty_like(first)
    for factor in np.unique(shared):
        points = np.flatnonzero(shared == factor)
        second[points] = table.alike(rng, int(factor), first[points])
    return first, second


def _mean_differences(
    codes: Codes,
    first: Int[np.ndarray, "points pairs"],
    second: Int[np.ndarray, "points pairs"],
    sizes: Int[np.ndarray, " sizes"],
) -> Float[np.ndarray, "sizes points d"]:
    """Mean absolute difference over the first pairs of each point, for each number of pairs in `sizes`."""
    means = np.empty((len(sizes), len(first), codes.shape[1]))
    starts = np.concatenate([[0], sizes[:-1]])
    for points in np.array_split(np.arange(len(first)), 1 + first.size * codes.shape[1] // CHUNK):
        gaps = np.abs(np.take(codes, first[points], axis=0) - np.take(codes, second[points], axis=0))
        sums = np.add.reduceat(gaps, starts, axis=1, dtype=np.float64).cumsum(axis=1)
        means[:, points] = rearrange(sums, "points sizes d -> sizes points d") / sizes[:, None, None]
    return means
