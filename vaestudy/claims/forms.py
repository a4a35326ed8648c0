"""The few forms that a claim's test takes, each written as data: which models, which number, which comparison.

Every form says which models it draws from (`units`), its effect as the distance from its bound (`estimate`: the
difference plus the margin), its one-sided p for the claim and for the opposite (`tails`), and the least p that so many
models can reach. `estimate` and `tails` take many samples of models at once, one a row.
"""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from vaestudy.claims import statistics
from vaestudy.claims.records import Draw, NotTestable, Records, Units, Where, resampled
from vaestudy.claims.statistics import DRAWS, Estimate, Tails

Rows = Float[np.ndarray, "samples models"]


class Form:
    """What all forms share: a bootstrap-t interval, no margin, one choice, any p within reach."""

    margin: float = 0.0
    text: str

    def units(self, records: Records) -> Units:
        """The records of each setting, by a key of the setting; raises NotTestable where they are not there."""
        raise NotImplementedError

    def named(self) -> set[str]:
        """The settings by which the claim tells its models apart: those that its fields mention."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        names = {values[key] for key in ("over", "size") if key in values}
        for parts in (value for value in values.values() if isinstance(value, tuple)):
            names |= set().union(*(part.named() if isinstance(part, Form) else {part[0]} for part in parts))
        return names

    def estimate(self, draw: Draw) -> Estimate:
        raise NotImplementedError

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        raise NotImplementedError

    def choices(self, draw: Draw) -> int:
        """How many tests the least p is taken from."""
        return 1

    def least_p(self, draw: Draw) -> float:
        """The least one-sided p that so many models can reach."""
        return 0.0

    def interval(self, draw: Draw) -> tuple[float, float]:
        """95 % for the effect by bootstrap-t; the choice of a best one is made anew in each resample."""
        own = self.estimate(draw)
        star = self.estimate(resampled(draw.records, draw.units, 9_999, 1, np.random.default_rng(0)))
        spread = star.se > 0
        t = (star.effect[spread] - own.effect) / star.se[spread] if spread.any() else np.zeros(1)
        high, low = own.effect - np.quantile(t, [0.025, 0.975]) * own.se - self.margin
        return low, high


class Plain(Form):
    """A form without a choice: its interval is Welch's or Student's t."""

    def interval(self, draw: Draw) -> tuple[float, float]:
        own = self.estimate(draw)
        half = stats.t.ppf(0.975, own.df[0]) * own.se[0]
        return own.effect[0] - self.margin - half, own.effect[0] - self.margin + half


@dataclass(frozen=True)
class Above(Plain):
    """P2(a, b; margin): the models of setting `a` score above those of `b`, less the margin."""

    a: Where
    b: Where
    value: str
    margin: float = 0.0
    text = "P2: the larger p of Welch's t-test and of its permutation over the models of both settings"

    def units(self, records: Records) -> Units:
        return {where: records.rows(where) for where in (self.a, self.b)}

    def estimate(self, draw: Draw) -> Estimate:
        return statistics.welch(draw.values(self.value, self.a) + self.margin, draw.values(self.value, self.b))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        a, b = draw.values(self.value, self.a), draw.values(self.value, self.b)
        return statistics.two_setting_p(a + self.margin, b, draw.pieces(self.a, self.b), draws)

    def least_p(self, draw: Draw) -> float:
        return 1 / statistics.labelling_count(*draw.pieces(self.a, self.b))


@dataclass(frozen=True)
class Positive(Plain):
    """S1(value): one number a model is above 0, by sign-flips; ten models at least."""

    where: Where
    value: str
    text = "S1: sign-flips of one number a model"

    def units(self, records: Records) -> Units:
        rows = records.rows(self.where)
        if len(rows) < 10:
            raise NotTestable(f"{len(rows)} models where sign-flips need ten")
        return {self.where: rows}

    def estimate(self, draw: Draw) -> Estimate:
        return statistics.mean_estimate(draw.values(self.value, self.where))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        return statistics.sign_flip_p(draw.values(self.value, self.where), draws)

    def least_p(self, draw: Draw) -> float:
        return 0.5 ** len(draw.units[self.where])


@dataclass(frozen=True)
class AllOf(Form):
    """IUT: every part holds, judged by the largest p; the opposite is that one part at least fails, k·min.

    The effect is that of the part nearest to its bound, as the distance from the bound.
    """

    parts: tuple[Form, ...]

    @property
    def text(self) -> str:
        return "IUT: the largest p of " + "; ".join(dict.fromkeys(part.text for part in self.parts))

    def units(self, records: Records) -> Units:
        return {key: rows for part in self.parts for key, rows in part.units(records).items()}

    def estimate(self, draw: Draw) -> Estimate:
        parts = [part.estimate(draw) for part in self.parts]
        least = np.argmin([part.effect for part in parts], axis=0)
        return Estimate(*(taken(np.array(column), least) for column in zip(*parts, strict=True)))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        p = np.array([part.tails(draw, draws) for part in self.parts])
        return p[:, 0].max(axis=0), np.minimum(1, p[:, 1].min(axis=0) * len(p))

    def choices(self, draw: Draw) -> int:
        return max(part.choices(draw) for part in self.parts)

    def least_p(self, draw: Draw) -> float:
        return max(part.least_p(draw) for part in self.parts)


@dataclass(frozen=True)
class Slope(Plain):
    """The slope of a number on log `over` is above 0, by permuting `over` within each seed.

    Settings at which a model holds less than `held` nats are left out. The opposite ("does not") has a margin: the
    slope is below `enough`.
    """

    where: Where
    value: str
    enough: float
    held: float
    over: str = "beta"
    text = "slope on the logarithm, settings permuted within each seed"

    def units(self, records: Records) -> Units:
        values, nats = records.grid(self.where, self.over), records.column("nats")
        rows = records.sweep(self.where, self.over, values)
        rows = rows[:, (nats[rows] >= self.held).all(axis=0)]
        if rows.shape[1] < 3:
            raise NotTestable(f"fewer than three values of {self.over} at which every model holds {self.held} nats")
        return {(self.where, self.over): rows}

    def estimate(self, draw: Draw) -> Estimate:
        values, x = self._points(draw)
        x = x - x.mean()
        return statistics.mean_estimate(values @ x / (x @ x))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        values, x = self._points(draw)
        return statistics.slope_p(values, x, draws)[0], statistics.slope_p(values - self.enough * x, x, draws)[1]

    def _points(self, draw: Draw):
        key = (self.where, self.over)
        return draw.values(self.value, key), np.log(draw.records.column(self.over)[draw.units[key][0]])


@dataclass(frozen=True)
class OnCurve(Plain):
    """P2 against a curve: models of `where` score as well, less the margin, as a swept network of the same nats.

    Each seed of the sweep gives one number, its score read at the mean nats of `where` between the two settings whose
    mean nats enclose it; so the curve's own spread is part of the test. The seeds differ, and count as one piece.
    """

    where: Where
    value: str
    nats: str
    curve: Where
    curve_value: str
    margin: float
    over: str = "beta"
    text = "P2 against the other network's score, read from its sweep at the same nats"

    def units(self, records: Records) -> Units:
        grid = records.grid(self.curve, self.over)
        return {self.where: records.rows(self.where), self.curve: records.sweep(self.curve, self.over, grid)}

    def estimate(self, draw: Draw) -> Estimate:
        return statistics.welch(*self._pair(draw))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        return statistics.two_setting_p(*self._pair(draw), None, draws)

    def least_p(self, draw: Draw) -> float:
        a, b = (len(draw.units[key]) for key in (self.where, self.curve))
        return 1 / statistics.labelling_count((0,) * a, (0,) * b)

    def _pair(self, draw: Draw):
        """Scores plus margin, and the scores (samples, seeds) that the curve has at the same nats."""
        nats = draw.values("nats", self.curve).mean(axis=1)
        order = nats[0].argsort()
        nats, scores = nats[:, order], draw.values(self.curve_value, self.curve)[:, :, order]
        target = draw.values(self.nats, self.where).mean(axis=1, keepdims=True)
        if draw.times == 0 and not nats.min() <= target <= nats.max():
            raise NotTestable(f"the curve spans {nats.min():.1f} to {nats.max():.1f} nats, not {target.item():.1f}")
        high = np.clip((nats < target).sum(axis=1), 1, nats.shape[1] - 1)
        samples = np.arange(len(nats))
        low_nats, high_nats = nats[samples, high - 1], nats[samples, high]
        share = np.clip((target[:, 0] - low_nats) / (high_nats - low_nats), 0, 1)[:, None]
        read = (1 - share) * scores[samples, :, high - 1] + share * scores[samples, :, high]
        return draw.values(self.value, self.where) + self.margin, read


def taken(values: Float[np.ndarray, "settings samples *rest"], chosen: Int[np.ndarray, " samples"]):
    """Of each sample the setting chosen for it."""
    return values[chosen, np.arange(values.shape[1])]
