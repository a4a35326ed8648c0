"""All scores of a code in one table, each between what noise and what the true factors get."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import NamedTuple

from vaestudy.errors import InputError
from vaestudy.metrics.baselines import factor_codes, noise_codes
from vaestudy.metrics.dci import dci, dci_es
from vaestudy.metrics.factor_vae import factor_vae_score
from vaestudy.metrics.higgins import higgins_score
from vaestudy.metrics.infomec import infomec
from vaestudy.metrics.information import mig, mig_sup, modularity
from vaestudy.metrics.moments import irs, total_correlation
from vaestudy.metrics.predict import explicitness, sap
from vaestudy.metrics.table import Codes, Labels


class Metric(NamedTuple):
    """A function `(codes, factors, *, seed, ...)` to a float, or to a NamedTuple of several.

    Attributes:
        splits: its `train` and `test` are rows of the table, not votes; small tables are split 2 to 1.
        expensive: it takes seconds a code, and is left out unless asked for by name.
    """

    function: Callable
    splits: bool = False
    expensive: bool = False


METRICS = {
    "higgins": Metric(higgins_score),
    "factor_vae": Metric(factor_vae_score),
    "mig": Metric(mig),
    "mig_sup": Metric(mig_sup),
    "sap": Metric(sap, splits=True),
    "modularity": Metric(modularity),
    "explicitness": Metric(explicitness, splits=True),
    "irs": Metric(irs),
    "total_correlation": Metric(total_correlation),
    "dci": Metric(dci, splits=True),
    "dci_es": Metric(dci_es, splits=True, expensive=True),
    "infomec": Metric(infomec, expensive=True),
}


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
    if unknown := set(only or ()) - set(METRICS):
        raise InputError(f"no metric is called {', '.join(sorted(unknown))}; there are {', '.join(METRICS)}")
    taken = {name: _settings_of(name, settings) for name in METRICS}
    if unused := set(settings) - {key for keys in taken.values() for key in keys}:
        raise InputError(f"no metric has a setting {', '.join(sorted(unused))}")
    card: dict[str, float] = {}
    for name, metric in METRICS.items():
        if (name not in only) if only is not None else metric.expensive:
            continue
        sizes = _split(metric.function, len(codes)) if metric.splits else {}
        own = {parameter: settings[key] for key, parameter in taken[name].items()}
        result = metric.function(codes, factors, seed=seed, **sizes | own)
        parts = result._asdict() if isinstance(result, tuple) else {}
        card |= {f"{name}_{part}": value for part, value in parts.items()} or {name: result}
    return card


def _settings_of(name: str, settings: dict) -> dict[str, str]:
    """The settings that the metric takes, each with the parameter that it is for."""
    known = set(signature(METRICS[name].function).parameters) - {"codes", "factors", "seed"}
    names = {key: key.removeprefix(f"{name}_") for key in settings}
    return {key: parameter for key, parameter in names.items() if parameter in known}


def _split(metric: Callable, rows: int) -> dict[str, int]:
    default = signature(metric).parameters
    train = min(default["train"].default, 2 * rows // 3)
    return {"train": train, "test": min(default["test"].default, rows - train)}
