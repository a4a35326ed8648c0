"""All scores of a code in one table, each between what noise and what the true factors get."""

from collections.abc import Sequence
from typing import NamedTuple

from vaestudy.metrics.baselines import factor_codes, noise_codes
from vaestudy.metrics.information import irs, mig, modularity, total_correlation
from vaestudy.metrics.predict import Importance, dci, explicitness, sap
from vaestudy.metrics.table import Codes, Labels
from vaestudy.metrics.votes import factor_vae_score, higgins_score


class Score(NamedTuple):
    """One metric of a code, of as many latents of noise (floor), and of the true factors (ceiling)."""

    metric: str
    value: float
    floor: float
    ceiling: float


def score_card(
    codes: Codes,
    factors: Labels,
    seed: int,
    *,
    classes: Sequence[int] | None = None,
    pairs: int = 64,
    dci_method: Importance | None = "forest",
) -> list[Score]:
    """Every metric with its floor and its ceiling under the same settings; see `scores`."""
    settings = {"seed": seed, "classes": classes, "pairs": pairs, "dci_method": dci_method}
    value = scores(codes, factors, **settings)
    floor = scores(noise_codes(*codes.shape, seed=seed), factors, **settings)
    ceiling = scores(factor_codes(factors), factors, **settings)
    return [Score(name, value[name], floor[name], ceiling[name]) for name in value]


def scores(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    classes: Sequence[int] | None = None,
    pairs: int = 64,
    dci_method: Importance | None = "forest",
    only: Sequence[str] | None = None,
) -> dict[str, float]:
    """Every metric of a code by name, at disentanglement_lib's sizes where the table has so many rows.

    Smaller tables are split 2 to 1 for training and testing. `classes` and `pairs` are those of `higgins_score`;
    `dci_method=None` leaves DCI out; `only` names the metrics wanted, in place of all.
    """
    train = min(10_000, 2 * len(codes) // 3)
    split = {"seed": seed, "train": train, "test": min(5_000, len(codes) - train)}
    known = {
        "higgins": lambda: higgins_score(codes, factors, seed=seed, classes=classes, pairs=pairs),
        "factor_vae": lambda: factor_vae_score(codes, factors, seed=seed),
        "mig": lambda: mig(codes, factors, seed=seed),
        "sap": lambda: sap(codes, factors, **split),
        "modularity": lambda: modularity(codes, factors, seed=seed),
        "explicitness": lambda: explicitness(codes, factors, **split),
        "irs": lambda: irs(codes, factors, seed=seed),
        "total_correlation": lambda: total_correlation(codes, factors, seed=seed),
    }
    card = {name: metric() for name, metric in known.items() if only is None or name in only}
    if dci_method is not None and only is None:
        parts = dci(codes, factors, method=dci_method, **split)._asdict()
        card |= {f"dci_{part}": value for part, value in parts.items()}
    return card
