"""Unsupervised disentanglement ranking: models that agree up to order and sign are likely to be disentangled."""

from collections.abc import Sequence
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import Lasso

from vaestudy.errors import InputError
from vaestudy.metrics.table import varies


class UDR(NamedTuple):
    """The score of each model in [0, 1], and of each pair: row predicts column, NaN on the diagonal."""

    scores: Float[np.ndarray, " models"]
    pairs: Float[np.ndarray, "models models"]


def udr(
    codes: Sequence[Float[np.ndarray, "n _"]],
    kls: Sequence[Float[np.ndarray, " _"]],
    *,
    seed: int,
    points: int = 1_000,
    alpha: float = 0.1,
    informative_nats: float = 0.01,
    normaliser: Literal["pooled", "mean"] = "pooled",
) -> UDR:
    """Ranks models without labels, from the codes (n, d) that each gives to the same images.

    Duan et al. (2020), sec. 4: the standardised codes of one model predict those of another by lasso with penalty
    `alpha`, on `points` images; the pair scores high when each latent has one strong partner (`pair_score`). Only
    latents whose mean KL, in `kls` (d,), exceeds `informative_nats` take part; a model without any scores 0. A
    model's score is the median over its partners. Raises InputError for fewer than two models or parts that do not fit.
    """
    if len(codes) < 2 or len(kls) != len(codes) or any(len(c) != len(codes[0]) for c in codes):
        raise InputError("udr compares two models or more: for each the codes of the same images and the KL per latent")
    for code, kl in zip(codes, kls, strict=True):
        if code.shape[1:] != kl.shape or not np.isfinite(code).all() or not np.isfinite(kl).all():
            raise InputError("udr needs finite codes (n, d) and the finite mean KL (d,) in nats of each latent")
    rows = np.random.default_rng(seed).choice(len(codes[0]), min(points, len(codes[0])), replace=False)
    live = [_informative(code[rows], kl > informative_nats) for code, kl in zip(codes, kls, strict=True)]
    pairs = np.full((len(codes), len(codes)), np.nan)
    for i, j in permutations(range(len(codes)), 2):
        pairs[i, j] = pair_score(_strength(live[i], live[j], alpha), normaliser)
    return UDR(np.nanmedian(pairs, axis=0), pairs)


def pair_score(strength: Float[np.ndarray, "a b"], normaliser: Literal["pooled", "mean"] = "pooled") -> float:
    """How one-to-one the relation of a latents to b latents is, from its strengths in [0, 1]; 0 without latents.

    Each latent contributes the square of its strongest tie over the sum of its ties. "pooled" is the paper's average
    over all a + b latents; "mean" is disentanglement_lib's mean of the two models' averages, equal where a = b.
    """
    if normaliser not in ("pooled", "mean"):
        raise InputError(f"normaliser must be 'pooled' or 'mean', not {normaliser!r}")
    if not strength.size:
        return 0.0
    sides = []
    for ties in (strength, strength.T):
        total = ties.sum(axis=1)
        sides.append(ties.max(axis=1) ** 2 / np.where(total > 0, total, 1))
    return float(np.concatenate(sides).mean() if normaliser == "pooled" else (sides[0].mean() + sides[1].mean()) / 2)


def _informative(code: Float[np.ndarray, "n d"], informative: np.ndarray) -> Float[np.ndarray, "n _"]:
    kept = code[:, informative & varies(code)].astype(np.float64)
    return (kept - kept.mean(axis=0)) / kept.std(axis=0)


def _strength(
    left: Float[np.ndarray, "n a"], right: Float[np.ndarray, "n b"], alpha: float
) -> Float[np.ndarray, "a b"]:
    if not left.shape[1] or not right.shape[1]:
        return np.zeros((left.shape[1], right.shape[1]))
    return np.abs(np.atleast_2d(Lasso(alpha=alpha).fit(left, right).coef_)).T
