"""Unsupervised disentanglement ranking: models that agree up to order and sign are likely to be disentangled."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import scipy.stats
from jaxtyping import Float
from sklearn.linear_model import Lasso

from vaestudy.errors import InputError
from vaestudy.metrics.table import Models, varies

PENALTY = 0.1  # of the lasso
STEPS = 100_000  # in which latents that are nearly copies of each other converge, too
INFORMATIVE_NATS = 0.01


def udr(
    codes: Models, kls: Sequence[Float[np.ndarray, " _"]], *, seed: int, points: int = 1_000
) -> Float[np.ndarray, " models"]:
    """The score of each model in [0, 1] without labels, from the codes (n, d) that each gives to the same images.

    Duan et al. (2020), sec. 4: the standardised codes of one model predict those of another by lasso, on `points`
    images; the pair scores high when each latent has one strong partner (`pair_score`). Only latents whose mean KL, in
    `kls` (d,), exceeds .01 nats take part; a model without any scores 0. A model's score is the median over its
    partners. Raises InputError for fewer than two models or parts that do not fit.
    """
    if len(codes) < 2 or len(kls) != len(codes) or any(len(c) != len(codes[0]) for c in codes):
        raise InputError("udr compares two models or more: for each the codes of the same images and the KL per latent")
    rows = np.random.default_rng(seed).choice(len(codes[0]), min(points, len(codes[0])), replace=False)
    live = []
    for code, kl in zip(codes, kls, strict=True):
        if code.shape[1:] != kl.shape or not np.isfinite(code).all() or not np.isfinite(kl).all():
            raise InputError("udr needs finite codes (n, d) and the finite mean KL (d,) in nats of each latent")
        some = code[rows]
        informative = some[:, (kl > INFORMATIVE_NATS) & varies(some)].astype(np.float64)
        live.append(scipy.stats.zscore(informative, axis=0))
    pairs = np.diag(np.full(len(codes), np.nan))  # row predicts column
    for i, j in permutations(range(len(codes)), 2):
        if live[i].shape[1] and live[j].shape[1]:
            weights = Lasso(alpha=PENALTY, max_iter=STEPS).fit(live[i], live[j]).coef_
            pairs[i, j] = pair_score(np.abs(np.atleast_2d(weights)).T)
    return np.nanmedian(pairs, axis=0)


def pair_score(strength: Float[np.ndarray, "a b"]) -> float:
    """How one-to-one the relation of a latents to b latents is, from its strengths in [0, 1].

    Each latent contributes the square of its strongest tie over the sum of its ties; the paper averages over all a + b
    latents, disentanglement_lib over the two models' averages, which is the same where a = b.
    """
    totals = np.concatenate([strength.sum(axis=1), strength.sum(axis=0)])
    strongest = np.concatenate([strength.max(axis=1), strength.max(axis=0)])
    return float((strongest**2 / np.where(totals > 0, totals, 1)).mean())
