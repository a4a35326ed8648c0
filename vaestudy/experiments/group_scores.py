"""What one latent group is worth: codes drawn from its posterior and the true factors in, numbers out.

Every score stands between references: chance, codes of noise (floor), the true factors (ceiling), random rotations of
the same latents (the information without any alignment), and the true factors that the code knows.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LinearRegression

from vaestudy import metrics
from vaestudy.metrics.table import Codes, Labels

KNOWN_FROM = 0.5  # R² by nearest neighbours from which a code knows a factor, and under which it has dropped one


def scored_metrics(classes: Sequence[int]) -> dict[str, Callable[..., float]]:
    """The scores that stand beside their rotations, by the name of their column."""
    return {"higgins_5": partial(metrics.higgins_score, classes=classes, pairs=5), "mig": metrics.mig}


def scores(
    codes: Codes,
    factors: Labels,
    nats: Float[np.ndarray, " d"],
    *,
    names: Sequence[str],
    seed: int,
    classes: Sequence[int],
    rotations: int,
    draws: int = 1,
) -> dict[str, float]:
    """Scores of the latents of a group that carry .05 nats or more; all are 0 where none does.

    Args:
        codes: draws from the posterior, one row a draw, those of an image one after another.
        factors: of the same rows.
        nats: mean KL of each latent.
        names: of the factors.
        seed: of pairs, splits and rotations.
        classes: factor columns that the Higgins score names and the R² are of.
        rotations: random rotations behind each `*_rotated`.
        draws: of each image; what learns from some rows and is tested on others takes one of them.

    Returns:
        `nats`, `live` (how many latents), and of the live ones: `{higgins_5,mig}_{draws,rotated}`, `*_noise` of as many
        latents of noise, `*_known` of the true factors that they know (R² of one half at least); `higgins_1_draws`,
        `mig_sup_draws`; `linear_r2` (see there); `r2_{factor}` by nearest neighbours.
    """
    live = metrics.live(nats)
    about = {"nats": float(nats.sum()), "live": int(live.sum())}
    z, examined = codes[:, live], scored_metrics(classes)
    drawn = {"higgins_1_draws", "mig_sup_draws", "linear_r2", *(f"r2_{name}" for name in names)}
    drawn |= {f"{name}_{kind}" for name in examined for kind in ("draws", "rotated", "noise", "known")}
    if not live.any():
        return about | dict.fromkeys(sorted(drawn), 0.0)
    noise, r2 = metrics.noise_codes(*z.shape, seed=seed), metrics.knn_r2(z[::draws], factors[::draws], seed=seed)
    known = np.flatnonzero(r2 >= KNOWN_FROM).tolist()
    row = {
        "higgins_1_draws": metrics.higgins_score(z, factors, seed=seed, classes=classes, pairs=1),
        "mig_sup_draws": metrics.mig_sup(z, factors, seed=seed),
        "linear_r2": linear_r2(z[::draws], factors[::draws][:, classes]),
        **{f"r2_{name}": float(value) for name, value in zip(names, r2, strict=True)},
    }
    for name, metric in examined.items():
        row[f"{name}_draws"] = metric(z, factors, seed=seed)
        row[f"{name}_rotated"] = metrics.rotation_score(z, factors, seed=seed, rotations=rotations, metric=metric)
        row[f"{name}_noise"] = metric(noise, factors, seed=seed)
        guess = 1 / len(classes) if name == "higgins_5" else 0.0
        row[f"{name}_known"] = metric(metrics.factor_codes(factors[:, known]), factors, seed=seed) if known else guess
    return about | row


def references(factors: Labels, *, seed: int, classes: Sequence[int]) -> dict[str, float]:
    """What no code changes: `higgins_chance`, and `*_ceiling`, the scores of the true factors."""
    truth = metrics.factor_codes(factors)
    ceilings = {name: metric(truth, factors, seed=seed) for name, metric in scored_metrics(classes).items()}
    return {"higgins_chance": 1 / len(classes)} | {f"{name}_ceiling": v for name, v in ceilings.items()}


def known(scores: Mapping[str, float], names: Sequence[str]) -> list[str]:
    """The factors that a group knows, by its row of scores."""
    return [name for name in names if scores[f"r2_{name}"] >= KNOWN_FROM]


def linear_r2(codes: Codes, factors: Labels) -> float:
    """R² of a linear regression of the factors on the code, mean over factors, on the last third of the rows.

    The statistic by which Vafaii et al. (2023) read all groups of a hierarchy together. Values count as numbers.
    """
    cut = 2 * len(codes) // 3
    fit = LinearRegression().fit(codes[:cut].astype(np.float64), factors[:cut])
    return float(fit.score(codes[cut:].astype(np.float64), factors[cut:]))


class Knowledge(NamedTuple):
    """Nats of each factor (columns) that a linear classifier reads from each group (rows), top first.

    `alone`: in the group by itself. `given_above`: in the group, when the groups above it are known: what it adds.
    `together`: in the group and those above it.
    """

    alone: Float[np.ndarray, "groups k"]
    given_above: Float[np.ndarray, "groups k"]
    together: Float[np.ndarray, "groups k"]


def knowledge(groups: Sequence[Float[np.ndarray, "n _"]], factors: Labels, *, seed: int) -> Knowledge:
    """What each group knows, by itself, beyond the groups above, and together with them.

    The nats of `metrics.read_out` by cross-validation in three folds, from one row an image of each group, top first.
    Factors of more than eight values are merged to eight neighbours. `seed` is that of the folds.
    """
    above = [np.concatenate(groups[: i + 1], axis=1) for i in range(len(groups))]
    ranks, exam = [np.unique(column, return_inverse=True)[1] for column in factors.T], {"seed": seed, "points": None}
    targets = [own * 8 // max(8, own.max() + 1) for own in ranks]
    alone, together = (
        np.array([[metrics.read_out(code, y, **exam).nats for y in targets] for code in codes])
        for codes in (groups, above)
    )
    return Knowledge(alone, np.diff(together, axis=0, prepend=0), together)
