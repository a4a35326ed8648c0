"""Every combination of some factors' values."""

import numpy as np

DSPRITES = (3, 6, 40, 32, 32)  # shape, scale, orientation, x, y


def full_grid(sizes=DSPRITES):
    return np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
