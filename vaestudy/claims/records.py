"""The table that claims read: one row a trained model."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from vaestudy.claims.statistics import Pieces
from vaestudy.errors import InputError
from vaestudy.words import SETTINGS

NAMES = ("part", "piece", "seed", "cpu", "record_version", "metric_version")

Where = tuple[tuple[str, object], ...]


class NotTestable(Exception):
    """Why the records cannot test a claim, in one line."""


def setting(**values) -> Where:
    """The models whose columns have these values, written so that it can be compared and hashed."""
    return tuple(sorted(values.items()))


def _words(where: Where) -> str:
    return ", ".join(f"{name} = {value}" for name, value in where)


class Records:
    """Records that fit together; the columns are described in `vaestudy.claims`.

    Raises InputError for a table without the naming columns, of several versions, or with one model twice.
    """

    def __init__(self, frame: pd.DataFrame):
        if missing := [name for name in NAMES if name not in frame or frame[name].isna().any()]:
            raise InputError(f"every record needs {', '.join(NAMES)}; missing: {', '.join(missing)}")
        for name in ("record_version", "metric_version"):
            if len(versions := sorted(map(str, frame[name].unique()))) > 1:
                raise InputError(f"records of {name} {' and '.join(versions)} do not fit together: make them anew")
        twice = frame[frame.duplicated(["part", "seed", *frame.columns.intersection(SETTINGS)])]
        if len(twice):
            row = twice.iloc[0]
            raise InputError(f"{len(twice)} models are recorded twice, the first in {row.part!r}, seed {row.seed}")
        self.frame = frame.sort_values(["piece", "seed"], kind="stable", ignore_index=True)
        self._columns: dict[str, np.ndarray] = {}

    def column(self, expression: str) -> Float[np.ndarray, " records"]:
        """A column, or an expression of columns such as "mig - mig_rotated", as numbers."""
        if expression not in self._columns:
            try:
                self._columns[expression] = self.frame.eval(expression).to_numpy(float)
            except (pd.errors.UndefinedVariableError, TypeError) as error:
                raise NotTestable(f"the records cannot give {expression!r}: {error}") from None
        return self._columns[expression]

    def rows(self, where: Where) -> Int[np.ndarray, " models"]:
        """Where the models of one setting stand, by piece and seed."""
        chosen = np.ones(len(self.frame), bool)
        for name, value in where:
            chosen &= (self.frame[name] == value).to_numpy() if name in self.frame else False
        if not chosen.any():
            part = [pair for pair in where if pair[0] == "part" and pair[1] not in set(self.frame["part"])]
            raise NotTestable(f"no model has {_words(tuple(part) or where)}")
        return np.flatnonzero(chosen)

    def grid(self, where: Where, over: str) -> list:
        """The values of a setting that these models have, in order."""
        rows = self.rows(where)
        return sorted(self.frame[over].iloc[rows].dropna().unique().tolist()) if over in self.frame else []

    def sweep(self, where: Where, over: str, values: list) -> Int[np.ndarray, "seeds settings"]:
        """The models of every seed that has each of these values of `over`: the others would unbalance the pieces."""
        if not values:
            raise NotTestable(f"too few values of {over} where {_words(where)}")
        chosen = self.frame.iloc[self.rows(where)].reset_index()
        places = chosen.pivot_table("index", "seed", over, aggfunc="last", sort=False).reindex(columns=values).dropna()
        if len(places) < 3:
            raise NotTestable(f"fewer than three seeds have every {over}")
        return places.to_numpy(int)

    def check_mixed(self, rows: Int[np.ndarray, " models"], varied: set[str], claim: str) -> None:
        """Raises InputError if the models that a claim compares differ in a setting that it does not name."""
        for name in self.frame.columns.intersection(SETTINGS).difference(varied):
            values = self.frame[name].iloc[rows].dropna().unique().tolist()
            if len(values) > 1:
                raise InputError(f"claim {claim} would compare models of {name} {values[0]} and {values[1]}")


Units = dict[object, np.ndarray]


@dataclass(frozen=True)
class Draw:
    """Samples of models: for every setting (the key) the records drawn, (samples, models, ...) places in the table.

    `units` are the models drawn from. `times`: 0 for the models themselves, 1 for a resample, 2 for a resample of a
    resample. A resample of n is less spread by sqrt(1 - 1/n); `stretch` undoes that at each step, so that means and
    spreads of the second one vary as those of another run would.
    """

    records: Records
    units: Units
    rows: Units
    times: int = 0

    def pieces(self, a: object, b: object) -> Pieces:
        """The pieces of the models of two settings: of one part by number, of two parts (other seeds) as one piece."""
        rows = [self.units[key].reshape(len(self.units[key]), -1)[:, 0] for key in (a, b)]
        frame = self.records.frame
        if frame["part"][rows[0][0]] != frame["part"][rows[1][0]]:
            return (0,) * len(rows[0]), (0,) * len(rows[1])
        numbers = pd.factorize(frame["piece"])[0]
        first, second = (tuple(numbers[own].tolist()) for own in rows)
        if set(first) != set(second):
            raise NotTestable("a piece of the run holds one of the two settings alone")
        return first, second

    def values(self, column: str, key: object, stretch: bool = True) -> Float[np.ndarray, "samples models *rest"]:
        """What the models of a setting scored; raises NotTestable where one of them lacks it."""
        scores = self.records.column(column)
        own = scores[self.units[key]]
        if len(own) < 3:
            raise NotTestable(f"{len(own)} models where three are the least for any interval")
        if not np.isfinite(own).all():
            raise NotTestable(f"{np.count_nonzero(~np.isfinite(own))} of {own.size} models have no {column!r}")
        values = scores[self.rows[key]]
        if self.times < 2 or not stretch:
            return values
        factor, mean = np.sqrt(len(own) / (len(own) - 1)), values.mean(axis=1, keepdims=True)
        return own.mean(axis=0) + factor * (mean - own.mean(axis=0)) + factor**2 * (values - mean)


def once(records: Records, units: Units) -> Draw:
    """The models as they are: one sample."""
    return Draw(records, units, {key: rows[None] for key, rows in units.items()})


def resampled(records: Records, units: Units, samples: int, times: int, rng: np.random.Generator) -> Draw:
    """Samples with replacement within every setting, drawn `times` times over."""
    rows = {}
    for key, own in units.items():
        chosen = rng.integers(len(own), size=(samples, len(own)))
        for _ in range(times - 1):
            chosen = np.take_along_axis(chosen, rng.integers(len(own), size=chosen.shape), axis=1)
        rows[key] = own[chosen]
    return Draw(records, units, rows, times)
