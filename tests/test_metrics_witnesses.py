"""Values that disentanglement_lib gives on the same rows of seven codes, so that no change of ours moves a score.

Every code is made from all 737,280 combinations of the dSprites factors, of which 15,000 are then taken.
"""

import numpy as np
import pytest
from factor_grid import witness

from vaestudy.metrics import explicitness, irs, mig, modularity, sap, total_correlation
from vaestudy.metrics.information import binned

ROWS = np.random.default_rng(123).choice(737_280, 15_000, replace=False)

# code: MIG, modularity, IRS with 20 bins, IRS without bins, total correlation, SAP, explicitness
WITNESSES = {
    "factors": (0.89580813, 0.99995881, 0.98573199, 1, 0.00060948226, 0.9999142, 0.98758456),
    "rotated": (0.2572529, 0.83260329, 0.49992407, 0.50041916, 0.00043112265, 0.23886935, 0.98760191),
    "noise": (0.0002118793, 0.66548438, 0.37668368, 0.37926011, 0.00046233107, 0.00010708646, 0.500945),
    "noisy_0.5": (0.34679405, 0.99895302, 0.59974609, 0.601684, 0.00062993335, 0.80184124, 0.856985),
    "noisy_2.0": (0.048998926, 0.96030791, 0.40350778, 0.40571453, 0.00055821703, 0.20412062, 0.627562),
    "mixed": (0.14722262, 0.88065773, 0.36333634, 0.36535259, 0.0028893551, 0.26582723, 0.950741),
    "dead": (0.50658398, 0.83911323, 0.69276339, 0.69546434, 0.0025289348, 0.9178749, 0.921042),
}


@pytest.mark.parametrize("name", WITNESSES)
def test_scores_are_those_of_disentanglement_lib_on_the_same_rows(name, grid):
    codes, factors = witness(name)[ROWS], grid[ROWS]
    first = {"codes": codes[:10_000], "factors": factors[:10_000], "seed": 0, "points": None}
    split = {"codes": codes, "factors": factors, "seed": 0, "train": 10_000, "test": 5_000}
    counted = (
        mig(**first),
        modularity(**first),
        irs(**first | {"factors": binned(first["factors"].astype(float), 20)}),
        irs(**first),
        total_correlation(**first),
    )
    assert (*counted, sap(**split)) == pytest.approx(WITNESSES[name][:6], rel=0, abs=1e-7)
    assert explicitness(**split) == pytest.approx(WITNESSES[name][6], rel=0, abs=5e-6)
