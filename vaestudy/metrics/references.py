"""What a score is worth: the same information at other angles, and the true factors that the code knows."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from vaestudy.errors import InputError
from vaestudy.metrics.baselines import factor_codes, rotated
from vaestudy.metrics.higgins import higgins_score
from vaestudy.metrics.table import SMALLEST, Codes, Labels, Table


def live(kl: Float[np.ndarray, " d"], threshold: float = 0.05) -> Bool[np.ndarray, " d"]:
    """Which latents carry something: those whose mean KL to the prior is at least `threshold` nats an image.

    A latent that is switched off still moves a little with the image, and whatever standardises columns (whitening,
    nearest neighbours on standardised codes, explicitness) makes much of it: score `codes[:, live(kl)]`, or draws of
    the posterior. Raises InputError for KLs that are not finite.
    """
    if not np.isfinite(kl).all():
        raise InputError("live needs the finite mean KL in nats of each latent")
    return kl >= threshold


def rotation_score(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    rotations: int = 20,
    metric: Callable[..., float] = higgins_score,
    **settings,
) -> float:
    """What the information of a code is worth to a metric without any alignment.

    The mean of `metric(codes, factors, seed=seed, **settings)` over `rotations` random rotations of the whitened
    latents, so that score minus rotation score is the alignment. Whitened means principal components of variance 1;
    those with less than a millionth of the largest one's standard deviation are left out. Latents that carry nothing
    are whitened to weigh like all others: pass live ones alone (see `live`). Codes that are constant have none, and
    are scored as they are.
    """
    if rotations < 1:
        raise InputError(f"rotations must be 1 or more, not {rotations}")
    white = whitened(codes, factors)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(rotations)]
    return float(np.mean([metric(rotated(white, seed=s), factors, seed=seed, **settings) for s in seeds]))


def whitened(codes: Codes, factors: Labels) -> Float[np.ndarray, "n _"]:
    """The principal components of the codes that vary, in float64 with variance 1 over the rows, the largest first."""
    z = Table(codes, factors).live_codes.astype(np.float64)
    z -= z.mean(axis=0)
    variances, axes = np.linalg.eigh(z.T @ z / len(z))
    kept = np.flatnonzero(variances > SMALLEST**2 * variances[-1])[::-1]
    return z @ (axes[:, kept] / np.sqrt(variances[kept])) if kept.size else z


def known_factors_score(
    factors: Labels,
    known: Sequence[int],
    *,
    seed: int,
    metric: Callable[..., float] = higgins_score,
    **settings,
) -> float:
    """What a perfect code of the factor columns `known`, and of nothing else, gets under a metric.

    The reference of a code that knows these factors alone: x and y tell three of the four classes of the β-VAE paper
    by a guess. `settings` are those of the metric. Raises InputError for columns that are not there.
    """
    if not len(known) or not set(known) <= set(range(factors.shape[1])):
        raise InputError(f"known must name columns of 0 to {factors.shape[1] - 1}, not {list(known)}")
    return metric(factor_codes(factors[:, list(known)]), factors, seed=seed, **settings)
