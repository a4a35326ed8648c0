"""Every combination of some factors' values, and codes of them whose scores are known from other implementations."""

from functools import cache

import numpy as np

DSPRITES = (3, 6, 40, 32, 32)  # shape, scale, orientation, x, y


def full_grid(sizes=DSPRITES):
    return np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)


def rotation(seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]


@cache
def witness(name):
    """A code (737280, d) in float64 of the full dSprites grid, by name."""
    grid = full_grid()
    factors = (grid - grid.mean(axis=0)) / grid.std(axis=0)

    def normal(seed):
        return np.random.default_rng(seed).normal(size=grid.shape)

    if name == "dead":
        codes = np.concatenate([factors + 0.3 * normal(5), 0.01 * normal(6)], axis=1)
        return codes[:, np.random.default_rng(7).permutation(10)]
    return {
        "factors": lambda: factors,
        "rotated": lambda: factors @ rotation(0),
        "noise": lambda: normal(1),
        "noisy_0.5": lambda: factors + 0.5 * normal(2),
        "noisy_2.0": lambda: factors + 2 * normal(2),
        "dropped": lambda: np.delete(factors, 2, axis=1),
        "mixed": lambda: np.arcsinh(3 * factors @ rotation(3)) @ rotation(4),
    }[name]()
