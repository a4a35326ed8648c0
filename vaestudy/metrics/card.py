"""All scores of a code in one table, and what they are worth: beside noise, true and known factors, rotations."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import NamedTuple

import numpy as np

from vaestudy.errors import InputError
from vaestudy.metrics.baselines import factor_codes, noise_codes, rotated
from vaestudy.metrics.information import infomec, irs, mig, mig_sup, modularity, total_correlation
from vaestudy.metrics.predict import dci, dci_es, explicitness, sap
from vaestudy.metrics.table import Codes, Labels, Table, check_columns, whitened
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
    value, floor, ceiling = (
        scores(z, factors, seed=seed, **settings)
        for z in (codes, noise_codes(*codes.shape, seed=seed), factor_codes(factors))
    )
    return [Score(name, value[name], floor[name], ceiling[name]) for name in value]


def scores(
    codes: Codes, factors: Labels, *, seed: int, only: Sequence[str] | None = None, **settings
) -> dict[str, float]:
    """Metrics of a code by name, at the sizes of disentanglement_lib where the table has so many rows.

    `only` names those wanted, expensive ones too (`METRICS` has all names); without it, all but the expensive ones.
    A setting goes to every metric that has a parameter of that name (classes=..., pairs=..., points=...), or with the
    metric's name before it to that one alone (dci_method=..., sap_method=...). A metric with several parts comes as
    metric_part. Raises InputError for metrics and settings that nobody knows.
    """
    wanted = set(METRICS) - EXPENSIVE if only is None else set(only)
    if unknown := wanted - set(METRICS):
        raise InputError(f"no metric is called {', '.join(sorted(unknown))}; there are {', '.join(METRICS)}")
    taken = {name: _settings_of(name, settings) for name in METRICS}
    if unused := set(settings) - {key for keys in taken.values() for key in keys}:
        raise InputError(f"no metric has a setting {', '.join(sorted(unused))}")
    card: dict[str, float] = {}
    for name in filter(wanted.__contains__, METRICS):
        own = {parameter: settings[key] for key, parameter in taken[name].items()}
        result = METRICS[name](codes, factors, seed=seed, **own)
        parts = result._asdict() if isinstance(result, tuple) else {}
        card |= {f"{name}_{part}": value for part, value in parts.items()} or {name: result}
    return card


def _settings_of(name: str, settings: dict) -> dict[str, str]:
    """The settings that the metric takes, each with the parameter that it is for."""
    known = set(signature(METRICS[name]).parameters) - {"codes", "factors", "seed"}
    names = {key: key.removeprefix(f"{name}_") for key in settings}
    return {key: parameter for key, parameter in names.items() if parameter in known}


def rotation_score(
    codes: Codes, factors: Labels, *, seed: int, rotations: int = 20, metric: Callable = higgins_score, **settings
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
    white = whitened(Table(codes, factors).codes)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(rotations)]
    return float(np.mean([metric(rotated(white, seed=s), factors, seed=seed, **settings) for s in seeds]))


def known_factors_score(
    factors: Labels, known: Sequence[int], *, seed: int, metric: Callable = higgins_score, **settings
) -> float:
    """What a perfect code of the factor columns `known`, and of nothing else, gets under a metric.

    The reference of a code that knows these factors alone: x and y tell three of the four classes of the β-VAE paper
    by a guess. `settings` are those of the metric. Raises InputError for columns that are not there.
    """
    known = check_columns("known", known, factors.shape[1], least=1)
    return metric(factor_codes(factors[:, known]), factors, seed=seed, **settings)
