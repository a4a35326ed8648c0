"""All scores of a code in one table, and what they are worth: beside noise, the true factors, rotations."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import NamedTuple

import numpy as np

from vaestudy.errors import InputError
from vaestudy.metrics.baselines import factor_codes, independent_seeds, noise_codes, rotated
from vaestudy.metrics.information import infomec, irs, mig, mig_sup, modularity, total_correlation
from vaestudy.metrics.predict import dci, dci_es, explicitness, sap
from vaestudy.metrics.table import Codes, Labels, Table, whitened
from vaestudy.metrics.votes import factor_vae_score, higgins_score

# Functions `(codes, factors, *, seed, ...)` to a float, or to a NamedTuple of several.
METRICS: dict[str, Callable] = {
    "higgins": higgins_score,
    "factor_vae": factor_vae_score,
    "mig": mig,
    "mig_sup": mig_sup,
    "sap": sap,
    "modularity": modularity,
    "explicitness": explicitness,
    "irs": irs,
    "total_correlation": total_correlation,
    "dci": dci,
    "dci_es": dci_es,
    "infomec": infomec,
}
EXPENSIVE = {"dci_es", "infomec"}  # seconds a code: left out unless asked for by name


class Score(NamedTuple):
    """One metric of a code, of as many latents of noise (floor), and of the true factors (ceiling)."""

    metric: str
    value: float
    floor: float
    ceiling: float


def score_card(codes: Codes, factors: Labels, seed: int, **settings) -> list[Score]:
    """The metrics with floor and ceiling under the same settings, which are those of `scores`, `only` included."""
    compared = codes, noise_codes(*codes.shape, seed=seed), factor_codes(factors)
    value, floor, ceiling = (scores(z, factors, seed=seed, **settings) for z in compared)
    return [Score(name, value[name], floor[name], ceiling[name]) for name in value]


def scores(
    codes: Codes, factors: Labels, *, seed: int, only: Sequence[str] | None = None, **settings
) -> dict[str, float]:
    """Metrics of a code by name, at the sizes of disentanglement_lib where the table has so many rows.

    `only` names those wanted; without it, all of `METRICS` but the expensive ones. A setting goes to every metric that
    has a parameter of that name (classes=..., pairs=..., points=...). A metric with several parts comes as metric_part.
    Raises InputError for metrics and settings that nobody knows.
    """
    wanted = set(METRICS) - EXPENSIVE if only is None else set(only)
    if unknown := wanted - set(METRICS):
        raise InputError(f"no metric is called {', '.join(sorted(unknown))}; there are {', '.join(METRICS)}")
    taken = {name: settings.keys() & signature(metric).parameters.keys() for name, metric in METRICS.items()}
    if unused := settings.keys() - set().union(*taken.values()):
        raise InputError(f"no metric has a setting {', '.join(sorted(unused))}")
    card: dict[str, float] = {}
    for name in filter(wanted.__contains__, METRICS):
        own = {key: settings[key] for key in taken[name]}
        result = METRICS[name](codes, factors, seed=seed, **own)
        parts = result._asdict() if isinstance(result, tuple) else {}
        card |= {f"{name}_{part}": value for part, value in parts.items()} or {name: result}
    return card


def rotation_score(
    codes: Codes, factors: Labels, *, seed: int, rotations: int = 20, metric: Callable = higgins_score, **settings
) -> float:
    """What the information of a code is worth to a metric without any alignment.

    The mean of `metric(codes, factors, seed=seed, **settings)` over `rotations` random rotations of the `whitened`
    latents, so that score minus rotation score is the alignment. Latents that carry nothing are whitened to weigh like
    all others: pass live ones alone (see `live`). Constant codes are scored as they are.
    """
    if rotations < 1:
        raise InputError(f"rotations must be 1 or more, not {rotations}")
    white = whitened(Table(codes, factors).codes)
    seeds = independent_seeds(seed, rotations)
    return float(np.mean([metric(rotated(white, seed=s), factors, seed=seed, **settings) for s in seeds]))
