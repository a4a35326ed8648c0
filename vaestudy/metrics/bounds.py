"""What log importance weights and posterior means say of a model: bounds on log p(x), and the latents in use."""

from collections.abc import Sequence

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float

from vaestudy.errors import InputError


def importance_weighted_ladder(
    log_weights: Float[np.ndarray, "n samples"], sizes: Sequence[int]
) -> Float[np.ndarray, "sizes n"]:
    """L_k of each image in nats for several k, from samples of log p(x, z) - log q(z|x); L_1 is the ELBO.

    Burda, Grosse & Salakhutdinov (2016), eq. 8: the log of the mean weight, below log p(x) in expectation and rising
    to it with k. The samples are cut into disjoint blocks of k, whose bounds are averaged: as unbiased as k fresh
    samples, and of less variance. A remainder that fills no block is left out. Raises InputError for weights that are
    NaN or +inf; -inf is a sample of no weight.
    """
    weights = np.asarray(log_weights, dtype=np.float64)
    if weights.ndim != 2 or np.isnan(weights).any() or (weights == np.inf).any():
        raise InputError("log weights must be a table (images, samples) without NaN or +inf")
    if not sizes or min(sizes) < 1 or max(sizes) > weights.shape[1]:
        raise InputError(f"block sizes must be 1 to {weights.shape[1]} samples, not {list(sizes)}")
    bounds = []
    for size in sizes:
        whole = weights[:, : weights.shape[1] // size * size]
        blocks = rearrange(whole, "n (blocks size) -> n blocks size", size=size)
        bounds.append((np.logaddexp.reduce(blocks, axis=2) - np.log(size)).mean(axis=1))
    return np.stack(bounds)


def active_units(means: Float[np.ndarray, "n d"], threshold: float = 0.01) -> Bool[np.ndarray, " d"]:
    """Which latents are in use: those whose posterior mean varies over the images with a variance above `threshold`.

    Burda, Grosse & Salakhutdinov (2016), sec. 5.2. `.sum()` is the number that the paper reports.
    """
    if means.ndim != 2 or len(means) < 2 or not np.isfinite(means).all():
        raise InputError("active units need the finite posterior means (n, d) of two images or more")
    return means.var(axis=0, dtype=np.float64) > threshold


def bits_per_dim(nats: float | Float[np.ndarray, "..."], dims: int) -> float | Float[np.ndarray, "..."]:
    """Nats per image as bits for each of the image's `dims` numbers, channels included; the sign stays."""
    if dims < 1:
        raise InputError(f"dims must be 1 or more, not {dims}")
    return nats / (dims * np.log(2))
