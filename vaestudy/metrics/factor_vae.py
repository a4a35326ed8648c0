"""The FactorVAE paper's disentanglement metric: the latent that varies least tells which factor is held fixed."""

import numpy as np
from jaxtyping import Int

from vaestudy.errors import InputError
from vaestudy.metrics.table import CHUNK, Codes, Labels, Table


def factor_vae_score(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    images: int = 64,
    train: int = 10_000,
    test: int = 5_000,
    prune_std: float = 0.05,
) -> float:
    """Accuracy in [0, 1] of a majority vote: which factor was fixed, from the latent that varied least.

    Kim & Mnih (2018), sec. 4, with the sizes of disentanglement_lib: `images` images that share a value give one vote;
    `train` votes decide which factor each latent stands for, `test` votes are judged. The scale of each latent drops
    out. Latents with a standard deviation below `prune_std` take no part (0 keeps all but constant ones); codes without
    any other score 0 by convention. A latent that wins no training vote stands for the first factor.
    """
    if min(images - 1, train, test) < 1:
        raise InputError(f"images must be 2 or more, train and test 1 or more, not {images}, {train} and {test}")
    table, rng = Table(codes, factors), np.random.default_rng(seed)
    table.columns(None)
    learnt, judged = (factor_vae_votes(table, rng, votes=n, images=images, prune_std=prune_std) for n in (train, test))
    return float(judged[learnt.argmax(axis=0), np.arange(judged.shape[1])].sum() / test)


def factor_vae_votes(
    table: Table, rng: np.random.Generator, *, votes: int, images: int = 64, prune_std: float = 0.05
) -> Int[np.ndarray, "k d"]:
    """How often each latent of the table varied least, relative to its variance, when each factor was fixed.

    Columns are the latents of the table, whether or not they are pruned: a pruned latent has no votes.
    """
    variance, width = table.variance, int(table.varying.sum())
    kept = np.flatnonzero(table.varying & (variance >= prune_std**2))
    counts = np.zeros((len(table.sizes), len(variance)), dtype=np.int64)
    fixed = rng.integers(len(table.sizes), size=votes)
    if not kept.size:
        return counts
    for factor in range(len(table.sizes)):
        anchors = rng.integers(len(table), size=(fixed == factor).sum())
        for some in np.array_split(anchors, 1 + len(anchors) * images * width // CHUNK):
            rows = table.alike(rng, factor, np.broadcast_to(some, (images, len(some))))
            local = np.take(table.codes, rows, axis=0)[..., kept].var(axis=0, ddof=1)
            least = kept[(local / variance[kept]).argmin(axis=1)]
            counts[factor] += np.bincount(least, minlength=len(variance))
    return counts
