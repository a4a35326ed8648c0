"""The few forms that a claim's test takes, each written as data: which models, which number, which comparison.

Those that choose a setting are in `vaestudy.claims.choices`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from vaestudy.claims import statistics
from vaestudy.claims.records import Draw, NotTestable, Records, Units, Where, resampled
from vaestudy.claims.statistics import DRAWS, Estimate, Pieces, Tails

Sides = tuple[Float[np.ndarray, "samples n"], Float[np.ndarray, "samples m"] | None, Pieces | None]


class Form:
    """What all forms share: no margin, nothing to choose, one test, any p within reach, and the interval.

    Each adds `units(records)`, the records of each setting by a key of the setting, or NotTestable; `estimate(draw)`,
    the effect as the distance from its bound (the difference plus the margin); and `tails(draw, draws)`, the one-sided
    p for the claim and for the opposite. The last two take many samples of models at once, one a row.
    """

    margin: float = 0.0
    text: str

    def named(self) -> set[str]:
        """The settings by which the claim tells its models apart: those that its fields mention."""
        values = vars(self)
        names = {values[key] for key in ("over", "size") if key in values}
        for parts in (value for value in values.values() if isinstance(value, tuple)):
            names |= set().union(*(part.named() if isinstance(part, Form) else {part[0]} for part in parts))
        return names

    def chooses(self, draw: Draw) -> bool:
        """Whether the models themselves say which settings are compared."""
        return False

    def choices(self, draw: Draw) -> int:
        """How many tests the least p is taken from."""
        return 1

    def least_p(self, draw: Draw) -> float:
        """The least one-sided p that so many models can reach."""
        return 0.0

    def interval(self, draw: Draw) -> tuple[float, float]:
        """95 % for the effect: Welch's or Student's t, or a bootstrap-t that makes the choice anew in each resample."""
        own = self.estimate(draw)
        t = stats.t.ppf([0.025, 0.975], own.df[0])
        if self.chooses(draw):
            star = self.estimate(resampled(draw.records, draw.units, 9_999, 1, np.random.default_rng(0)))
            spread = star.se > 0
            drawn = (star.effect[spread] - own.effect) / star.se[spread] if spread.any() else np.zeros(1)
            t = np.quantile(drawn, [0.025, 0.975])
        high, low = own.effect - t * own.se - self.margin
        return low, high


class Contrast(Form):
    """A form that compares two sides by P2, or one number a model with 0 by sign-flips.

    `sides(draw)`: the numbers of both, margin included, with the pieces of their models; without a second side None.
    """

    def estimate(self, draw: Draw) -> Estimate:
        a, b, _ = self.sides(draw)
        return statistics.mean_estimate(a) if b is None else statistics.welch(a, b)

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        a, b, pieces = self.sides(draw)
        return statistics.sign_flip_p(a, draws) if b is None else statistics.two_setting_p(a, b, pieces, draws)

    def least_p(self, draw: Draw) -> float:
        a, b, pieces = self.sides(draw)
        return 0.5 ** a.shape[1] if b is None else 1 / statistics.labelling_count(*pieces)


@dataclass(frozen=True)
class Above(Contrast):
    """P2(a, b; margin): the models of setting `a` score above those of `b`, less the margin."""

    a: Where
    b: Where
    value: str
    margin: float = 0.0
    text = "P2: the larger p of Welch's t-test and of its permutation over the models of both settings"

    def units(self, records: Records) -> Units:
        return {where: records.rows(where) for where in (self.a, self.b)}

    def sides(self, draw: Draw) -> Sides:
        a, b = (draw.values(self.value, where) for where in (self.a, self.b))
        return a + self.margin, b, draw.pieces(self.a, self.b)


@dataclass(frozen=True)
class Positive(Contrast):
    """S1(value): one number a model is above 0, by sign-flips; ten models at least."""

    where: Where
    value: str
    text = "S1: sign-flips of one number a model"

    def units(self, records: Records) -> Units:
        rows = records.rows(self.where)
        if len(rows) < 10:
            raise NotTestable(f"{len(rows)} models where sign-flips need ten")
        return {self.where: rows}

    def sides(self, draw: Draw) -> Sides:
        return draw.values(self.value, self.where), None, None


@dataclass(frozen=True)
class OnCurve(Contrast):
    """P2 against a curve: models of `where` score as well, less the margin, as a swept network of the same nats.

    Each seed of the sweep gives one number, its score read at the mean nats of `where` between the two settings whose
    mean nats enclose it: the curve's own spread is part of the test. All seeds, which differ, count as one piece.
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

    def sides(self, draw: Draw) -> Sides:
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
        own = draw.values(self.value, self.where) + self.margin
        return own, read, ((0,) * own.shape[1], (0,) * read.shape[1])


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
        return picked([part.estimate(draw) for part in self.parts], lambda effects: effects.argmin(axis=0))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        p = np.array([part.tails(draw, draws) for part in self.parts])
        return p[:, 0].max(axis=0), np.minimum(1, p[:, 1].min(axis=0) * len(p))

    def chooses(self, draw: Draw) -> bool:
        return True

    def choices(self, draw: Draw) -> int:
        return max(part.choices(draw) for part in self.parts)

    def least_p(self, draw: Draw) -> float:
        return max(part.least_p(draw) for part in self.parts)


@dataclass(frozen=True)
class Slope(Form):
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
        return {self.where: rows}

    def estimate(self, draw: Draw) -> Estimate:
        values, x = self._points(draw)
        return statistics.mean_estimate(values @ x / (x @ x))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        values, x = self._points(draw)
        return statistics.slope_p(values, x, draws)[0], statistics.slope_p(values - self.enough * x, x, draws)[1]

    def _points(self, draw: Draw):
        x = np.log(draw.records.column(self.over)[draw.units[self.where][0]])
        return draw.values(self.value, self.where), x - x.mean()


def picked(estimates: list[Estimate], choose) -> Estimate:
    """Of each sample the estimate that `choose` names, from the effects (estimates, samples)."""
    chosen = choose(np.array([estimate.effect for estimate in estimates]))
    return Estimate(*(taken(np.array(column), chosen) for column in zip(*estimates, strict=True)))


def taken(values: Float[np.ndarray, "settings samples *rest"], chosen: Int[np.ndarray, " samples"]):
    """Of each sample the setting chosen for it."""
    return values[chosen, np.arange(values.shape[1])]
