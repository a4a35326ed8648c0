"""What stage 2 scores codes by: posterior means as the paper takes them, draws, and what few labels say."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from vaestudy import metrics
from vaestudy.data import ImageSet, dsprites
from vaestudy.errors import InputError
from vaestudy.experiments.common import LEAST_SCORED, some_rows, unscorable
from vaestudy.experiments.group_scores import scored_metrics
from vaestudy.training import Run, memory

DRAWS = 10  # an image
TURNED = "orientation_in_shape"  # in place of dSprites' orientation where a read-out is a number
READ_OUT = "read_out"  # the column of a record in place of the Higgins scores where one factor alone is known
Reports = Mapping[str, Mapping[int, metrics.HigginsReport]]  # of each code, by L


class Examined(NamedTuple):
    """What scores are taken on: some or all images of a set, their factors, and the columns that are classes."""

    images: ImageSet
    factors: Int[np.ndarray, "n k"]
    classes: list[int]

    @property
    def names(self) -> tuple[str, ...]:
        return self.images.factors.names

    @property
    def chance(self) -> float:
        """What guessing scores: of several classes any, of the values of a single one the most frequent."""
        if len(self.classes) > 1:
            return 1 / len(self.classes)
        return float(np.bincount(self.factors[:, self.classes[0]]).max() / len(self.factors))


def examined(whole: ImageSet, limit: int) -> Examined:
    """At most `limit` images, of a full grid of factors an even part.

    Raises:
        InputError: too few images for the scores, or a factor of which some value is shared by too few of them.
    """
    found = region_examined(whole, limit)
    check_examined(whole.name, found.names, found.factors)
    return found


def region_examined(whole: ImageSet, limit: int) -> Examined:
    """The same of a region of a grid, in which factors may be constant."""
    seen = whole.subsample(limit)
    if len(seen) > limit:
        seen = seen.select(np.random.default_rng(0).choice(len(seen), limit, replace=False), some=limit)
    return Examined(seen, seen.factors.values(slice(None)), classes_of(whole.name, seen.factors.names))


def classes_of(name: str, factors: Sequence[str]) -> list[int]:
    """The factors of a data set that the Higgins score names: all, but the paper leaves the shape of dSprites out."""
    return [k for k, factor in enumerate(factors) if (name, factor) != ("dsprites", "shape")]


def check_examined(name: str, names: Sequence[str], values: Int[np.ndarray, "n k"]) -> None:
    """Raise InputError unless codes of images with these factors can be scored."""
    if len(values) < LEAST_SCORED:
        raise InputError(f"{name} has {len(values)} labelled images to score codes by: {LEAST_SCORED} are the least")
    for factor, few in unscorable(names, values).items():
        raise InputError(f"the factor {factor} of {name} has {few}: merge values, or leave it out of labels.csv")


def higgins(codes: Float[np.ndarray, "n d"], exam: Examined, seed: int, pairs: Sequence[int]) -> dict[str, float]:
    """The Higgins score for several L or, where one factor alone is known, what a linear read-out tells of it."""
    if len(exam.classes) < 2:
        found = metrics.read_out(codes, exam.factors[:, exam.classes[0]], seed=seed)
        return {READ_OUT: found.accuracy, f"{READ_OUT}_nats": found.nats}
    (curve,) = metrics.higgins_curve([codes], exam.factors, seed=seed, pairs=pairs, classes=exam.classes)
    return {f"higgins_{count}": float(score) for count, score in zip(pairs, curve, strict=True)}


def score(codes: Float[np.ndarray, "n d"], exam: Examined, seed: int, pairs: int) -> float:
    """The Higgins score for one L or, where one factor alone is known, the accuracy of a linear read-out."""
    return next(iter(higgins(codes, exam, seed, (pairs,)).values()))


def read_out_row(codes: Float[np.ndarray, "n d"], values: Int[np.ndarray, " n"], seed: int) -> dict[str, float]:
    """What a linear read-out tells of one factor, as tables name it."""
    found = metrics.read_out(codes, values, seed=seed)
    told = {"accuracy of a linear read-out": found.accuracy, "guessing": found.chance}
    return told | {"information, nats": found.nats}


def code_scores(codes: Float[np.ndarray, "n d"], exam: Examined, kl: list[float], seed: int, sizes: Any) -> dict:
    """The scores of a model's posterior means, as the paper takes them, and what its live latents know."""
    alive = live_codes(codes, kl)
    row = higgins(codes, exam, seed, sorted({1, 5, 64, sizes.get("pairs", 5)}))
    row["mig"] = metrics.mig(codes, exam.factors, seed=seed)
    several = len(exam.classes) > 1
    if several:
        row["factor_vae"] = metrics.factor_vae_score(codes, exam.factors, seed=seed)
    row["weak_higgins_5"] = weak_higgins(codes, exam, seed, sizes)
    known = r2_by_factor(exam.images.name, alive, exam.factors, exam.names, seed)
    row |= {f"r2_{name}": value for name, value in known.items()}
    once = {"seed": seed, "rotations": sizes.get("rotations", 0)}
    for name, metric in scored_metrics(exam.classes).items() if once["rotations"] else ():
        if several or name == "mig":
            row[f"{name}_rotated"] = metrics.rotation_score(alive, exam.factors, metric=metric, **once)
    return row


def r2_by_factor(
    dataset: str, codes: Float[np.ndarray, "n d"], factors: Int[np.ndarray, "n k"], names: Sequence[str], seed: int
) -> dict[str, float]:
    """What nearest neighbours read of each factor (`metrics.knn_r2`).

    In place of dSprites' orientation stands the angle within each shape: as a number it is unknown even to who sees all
    of an image, since the square looks alike after a quarter of a turn and the ellipse after half of one.
    """
    r2 = dict(zip(names, metrics.knn_r2(codes, factors, seed=seed).tolist(), strict=True))
    if dataset != "dsprites" or tuple(names) != dsprites.NAMES:
        return r2
    r2["orientation"] = metrics.angle_r2(codes, dsprites.angle(factors), factors[:, 0], seed=seed)
    return {TURNED if name == "orientation" else name: value for name, value in r2.items()}


def kl_of_some(run: Run, images: ImageSet) -> Float[np.ndarray, " d"]:
    """Mean KL in nats of each latent over 2,000 images drawn at random: the first ones of a grid are all alike."""
    return run.kl_by_latent(images, some_rows(images, 2_000))[0]


def live_codes(codes: Float[np.ndarray, "n d"], kl: Sequence[float] | np.ndarray) -> Float[np.ndarray, "n _"]:
    """The latents that carry .05 nats or more, or one that is constant where none does."""
    alive = metrics.live(np.asarray(kl))
    return codes[:, alive] if alive.any() else np.zeros_like(codes[:, :1])


def weak_higgins(codes: Float[np.ndarray, "n d"], exam: Examined, seed: int, sizes: Any) -> float:
    """The Higgins score, L = 5, when `labels` images have labels of two factors: the mean over subsets of labels.

    Images whose labels no other of the subset has make no pair and are left out; without any left it is a guess.
    Where one factor alone is known, the accuracy of a linear read-out from so many labels.
    """
    scores, two = [], exam.classes[-2:]
    for subset in range(sizes.get("label_subsets", 0)):
        rows = np.random.default_rng([seed, subset]).choice(len(codes), min(sizes["labels"], len(codes)), replace=False)
        part = {"seed": subset, "pairs": 5, "train": 1_000, "test": 1_000}
        kept = rows[paired(exam.factors[rows][:, two], 3 if len(two) < 2 else 2)]
        if not len(kept) or (np.ptp(exam.factors[kept][:, two], axis=0) == 0).any():
            scores.append(exam.chance if len(two) < 2 else 0.5)
        elif len(two) < 2:
            scores.append(metrics.read_out(codes[kept], exam.factors[kept, two[0]], seed=subset).accuracy)
        else:
            scores.append(metrics.higgins_score(codes[kept], exam.factors[kept][:, two], **part))
    return float(np.mean(scores)) if scores else float("nan")


def paired(factors: Int[np.ndarray, "n k"], least: int = 2) -> Int[np.ndarray, " m"]:
    """The rows whose value of each factor `least` rows or more share."""
    rows = np.arange(len(factors))
    while True:
        often = np.ones(len(rows), bool)
        for column in factors[rows].T:
            _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
            often &= counts[place] >= least
        if often.all():
            return rows
        rows = rows[often]


def draw_scores(drawn: Float[np.ndarray, "n d"], exam: Examined, kl: list[float], seed: int) -> dict[str, float]:
    """The scores of posterior draws of the live latents, ten an image; `exam` has the factors of each draw."""
    codes = live_codes(drawn, kl)
    # A read-out, which learns from some rows and is tested on others, takes one draw an image.
    taken = slice(None, None, 1 if len(exam.classes) > 1 else DRAWS)
    found = higgins(codes[taken], exam._replace(factors=exam.factors[taken]), seed, (5,))
    found["mig"] = metrics.mig(codes, exam.factors, seed=seed)
    return {f"{name}_draws": value for name, value in found.items()}


def threaded(function: Any, jobs: Sequence[tuple]) -> list:
    """A function of each of some arguments, on every core: what takes long in the metrics is NumPy's, which shares.

    BLAS is held to one thread from outside: scikit-learn holds it for each call, and calls side by side undo that.
    """
    with threadpool_limits(1, "blas"):
        return Parallel(memory.usable_cores(), prefer="threads")(delayed(function)(*job) for job in jobs)
