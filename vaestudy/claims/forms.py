"""The few forms that a claim's test takes, each written as data: which models, which number, which comparison.

Every form says which models it draws from (`units`), its effect as the distance from its bound (`estimate`: the
difference plus the margin), its one-sided p for the claim and for the opposite (`tails`), and the least p that so many
models can reach. `estimate` and `tails` take many samples of models at once, one a row.
"""

from dataclasses import dataclass

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
        """The settings by which the claim tells its models apart."""
        raise NotImplementedError

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
    text = "P2: Welch's t, labels permuted over the models of the two settings"

    def units(self, records: Records) -> Units:
        return {where: records.rows(where) for where in (self.a, self.b)}

    def named(self) -> set[str]:
        return {name for name, _ in self.a + self.b}

    def estimate(self, draw: Draw) -> Estimate:
        return statistics.welch(draw.values(self.value, self.a) + self.margin, draw.values(self.value, self.b))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        a, b = draw.values(self.value, self.a), draw.values(self.value, self.b)
        return statistics.permutation_p(a + self.margin, b, draw.pieces(self.a, self.b), draws)

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

    def named(self) -> set[str]:
        return {name for name, _ in self.where}

    def estimate(self, draw: Draw) -> Estimate:
        return statistics.mean_estimate(draw.values(self.value, self.where))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        return statistics.sign_flip_p(draw.values(self.value, self.where), draws)

    def least_p(self, draw: Draw) -> float:
        return 0.5 ** len(draw.units[self.where])


@dataclass(frozen=True)
class BestOf(Form):
    """k·min: at one setting of `over` at least the score is above that of a base; the choice is inside the test.

    The base is the setting `base` and each one above it, from `least` on, is a candidate. Or, with `held`, the base is
    the last setting at which every model holds `held` nats, and the candidates lie between `base` and it: the score
    falls again. The opposite is that every candidate is below the base, by the largest p (IUT).
    """

    where: Where
    value: str
    base: float = 1.0
    least: float = 0.0
    held: float | None = None
    over: str = "beta"
    text = "k·min: the least P2 of k settings against the base, times k"

    def units(self, records: Records) -> Units:
        grid = self._grid(records)
        if self.base not in grid or len(grid) < (2 if self.held is None else 3):
            raise NotTestable(f"too few values of {self.over}: {', '.join(map(str, grid)) or 'none'}")
        return dict(zip(self._keys(records), records.sweep(self.where, self.over, grid).T, strict=True))

    def named(self) -> set[str]:
        return {self.over, *(name for name, _ in self.where)}

    def estimate(self, draw: Draw) -> Estimate:
        scores, base, candidates = self._scores(draw)
        parts = [statistics.welch(values, base) for values in scores]
        best = np.where(candidates, [part.effect for part in parts], -np.inf).argmax(axis=0)
        return Estimate(*(_taken(np.array(column), best) for column in zip(*parts, strict=True)))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        scores, base, candidates = self._scores(draw)
        pieces = draw.pieces(*self._keys(draw.records)[:2])
        p = np.array([statistics.permutation_p(values, base, pieces, draws) for values in scores])
        up = np.where(candidates, p[:, 0], 1).min(axis=0) * candidates.sum(axis=0)
        down = np.where(candidates, p[:, 1], 0).max(axis=0)
        return np.where(candidates.any(axis=0), np.minimum(1, up), 1), np.where(candidates.any(axis=0), down, 1)

    def choices(self, draw: Draw) -> int:
        return int(self._scores(draw)[2].sum(axis=0).max())

    def least_p(self, draw: Draw) -> float:
        return self.choices(draw) / statistics.labelling_count(*draw.pieces(*self._keys(draw.records)[:2]))

    def _grid(self, records: Records) -> list:
        values = records.grid(self.where, self.over)
        return [value for value in values if value == self.base or (value > self.base and value >= self.least)]

    def _keys(self, records: Records) -> list[Where]:
        return [(*self.where, (self.over, value)) for value in self._grid(records)]

    def _scores(self, draw: Draw):
        """Scores (settings, samples, models), those of the base, and which settings are candidates in which sample."""
        keys = self._keys(draw.records)
        scores, places = np.array([draw.values(self.value, key) for key in keys]), np.arange(len(keys))[:, None]
        if self.held is None:
            return scores, scores[0], np.repeat(places > 0, scores.shape[1], axis=1)
        held = [(draw.values("nats", key, stretch=False) >= self.held).all(axis=1) for key in keys]
        last = np.where(held, places, 0).max(axis=0)
        if last[0] < 2 and draw.times == 0:
            raise NotTestable(f"between {self.over} = {self.base} and the last that keeps {self.held} nats lies none")
        return scores, _taken(scores, last), (places > 0) & (places < last)


@dataclass(frozen=True)
class Opposite(Form):
    """The contrary of another form: what it calls above is below, and k·min becomes the largest p."""

    form: Form
    text = "IUT: the largest P2 of the base against k settings"

    def units(self, records: Records) -> Units:
        return self.form.units(records)

    def named(self) -> set[str]:
        return self.form.named()

    def estimate(self, draw: Draw) -> Estimate:
        effect, se, df = self.form.estimate(draw)
        return Estimate(-effect, se, df)

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        return self.form.tails(draw, draws)[::-1]

    def least_p(self, draw: Draw) -> float:
        return self.form.least_p(draw) / self.form.choices(draw)


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

    def named(self) -> set[str]:
        return set().union(*(part.named() for part in self.parts))

    def estimate(self, draw: Draw) -> Estimate:
        parts = [part.estimate(draw) for part in self.parts]
        least = np.argmin([part.effect for part in parts], axis=0)
        return Estimate(*(_taken(np.array(column), least) for column in zip(*parts, strict=True)))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        p = np.array([part.tails(draw, draws) for part in self.parts])
        return p[:, 0].max(axis=0), np.minimum(1, p[:, 1].min(axis=0) * len(p))

    def choices(self, draw: Draw) -> int:
        return max(part.choices(draw) for part in self.parts)

    def least_p(self, draw: Draw) -> float:
        return max(part.least_p(draw) for part in self.parts)


@dataclass(frozen=True)
class Chosen(Form):
    """A setting is chosen on half of the seeds (A) by the mean of `by`; the other half (B) judges its score.

    Judged against the models of the setting `fits`, against the setting chosen by the column `rival`, against the
    setting `base`; or, where none is given, against 0 by sign-flips. A rival that chooses `base` is not counted.
    """

    where: Where
    by: str
    value: str
    fits: Where = ()
    rival: str = ""
    base: float | None = None
    over: str = "beta"

    @property
    def text(self) -> str:
        judge = Positive.text if self._alone else Above.text
        return f"chosen on every second seed, judged on the others; {judge}"

    @property
    def _alone(self) -> bool:
        return not (self.fits or self.rival or self.base is not None)

    def units(self, records: Records) -> Units:
        rows = records.sweep(self.where, self.over, records.grid(self.where, self.over))
        if self._alone and len(rows[1::2]) < 10:
            raise NotTestable(f"{len(rows[1::2])} models judge where sign-flips need ten")
        if self.base is not None and self.base not in records.grid(self.where, self.over):
            raise NotTestable(f"no model has {self.over} = {self.base}")
        return {"A": rows[::2], "B": rows[1::2]} | ({self.fits: records.rows(self.fits)} if self.fits else {})

    def named(self) -> set[str]:
        return {self.over, *(name for name, _ in self.where + self.fits)}

    def estimate(self, draw: Draw) -> Estimate:
        judged, other, _ = self._judged(draw)
        return statistics.mean_estimate(judged) if other is None else statistics.welch(judged, other)

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        judged, other, void = self._judged(draw)
        if other is None:
            return statistics.sign_flip_p(judged, draws)
        up, down = statistics.permutation_p(judged, other, draw.pieces("B", self.fits or "B"), draws)
        return np.where(void, 1, up), np.where(void, 1, down)

    def least_p(self, draw: Draw) -> float:
        if self._alone:
            return 0.5 ** len(draw.units["B"])
        return 1 / statistics.labelling_count(*draw.pieces("B", self.fits or "B"))

    def _judged(self, draw: Draw):
        """The score on B of the chosen setting and of what it is held against, and where that is the same setting."""
        scores = np.moveaxis(draw.values(self.value, "B"), 2, 0)
        chosen = draw.values(self.by, "A").mean(axis=1).argmax(axis=1)
        if self._alone:
            return _taken(scores, chosen), None, None
        if self.fits:
            return _taken(scores, chosen), draw.values(self.value, self.fits), False
        base = draw.records.grid(self.where, self.over).index(self.base) if self.base is not None else -1
        if not self.rival:
            return _taken(scores, chosen), scores[base], chosen == base
        rival = draw.values(self.rival, "A").mean(axis=1).argmax(axis=1)
        if draw.times == 0 and rival[0] == base:
            raise NotTestable(f"not counted: {self.rival} chooses {self.over} = {self.base}")
        return _taken(scores, chosen), _taken(scores, rival), (chosen == rival) | (rival == base)


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

    def named(self) -> set[str]:
        return {self.over, *(name for name, _ in self.where)}

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
class BestMoves(Form):
    """The best `over` grows with `size`: slope of its logarithm on log size, bootstrap over seeds, which are sweeps.

    The best of each size is the vertex of the parabola in log `over` through the best mean and its neighbours.
    """

    where: Where
    value: str
    size: str = "latent_dim"
    over: str = "beta"
    text = "slope of the log of the best setting on log size, bootstrap over seeds"

    def units(self, records: Records) -> Units:
        sizes = records.grid(self.where, self.size)
        cells = [(*self.where, (self.size, size)) for size in sizes]
        grids = [records.grid(cell, self.over) for cell in cells]
        if len(sizes) < 3 or len(set(map(len, grids))) > 1 or len(grids[0]) < 3:
            raise NotTestable(f"three values of {self.size} are needed, each with as many values of {self.over}")
        sweeps = [records.sweep(cell, self.over, grid) for cell, grid in zip(cells, grids, strict=True)]
        if len({len(rows) for rows in sweeps}) > 1:
            raise NotTestable(f"a seed lacks one value of {self.size}")
        return {(self.where, self.size): np.stack(sweeps, axis=1)}

    def named(self) -> set[str]:
        return {self.over, self.size, *(name for name, _ in self.where)}

    def estimate(self, draw: Draw) -> Estimate:
        values, x, size = self._points(draw)
        spread = self._slopes(draw, 199).std(axis=1, ddof=1)
        return Estimate(_peak_slope(values.mean(axis=1), x, size), spread, np.full(len(values), values.shape[1] - 1.0))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        slopes = self._slopes(draw, draws // 10)
        count = slopes.shape[1] + 1
        return (1 + (slopes <= 0).sum(axis=1)) / count, (1 + (slopes >= 0).sum(axis=1)) / count

    def interval(self, draw: Draw) -> tuple[float, float]:
        low, high = np.quantile(self._slopes(draw, DRAWS // 10)[0], [0.025, 0.975])
        return low, high

    def _points(self, draw: Draw):
        key = (self.where, self.size)
        columns = [draw.records.column(name)[draw.units[key][0]] for name in (self.over, self.size)]
        return draw.values(self.value, key), np.log(columns[0]), np.log(columns[1][:, 0])

    def _slopes(self, draw: Draw, resamples: int):
        """The slope in `resamples` resamples of the seeds of each sample."""
        values, x, size = self._points(draw)
        n = values.shape[1]
        weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), resamples) / n
        step = max(1, 2_000_000 // (resamples * x.size))
        blocks = np.array_split(values, -(-len(values) // step))
        return np.concatenate([_peak_slope(np.tensordot(weights, b, (1, 1)).swapaxes(0, 1), x, size) for b in blocks])


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
    text = "P2 against the other network's score, read from its sweep at the same nats; labels permuted over models"

    def units(self, records: Records) -> Units:
        grid = records.grid(self.curve, self.over)
        return {self.where: records.rows(self.where), self.curve: records.sweep(self.curve, self.over, grid)}

    def named(self) -> set[str]:
        return {self.over, *(name for name, _ in self.where + self.curve)}

    def estimate(self, draw: Draw) -> Estimate:
        return statistics.welch(*self._pair(draw))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        return statistics.permutation_p(*self._pair(draw), None, draws)

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


def _taken(values: Float[np.ndarray, "settings samples *rest"], chosen: Int[np.ndarray, " samples"]):
    """Of each sample the setting chosen for it."""
    return values[chosen, np.arange(values.shape[1])]


def _peak_slope(means: Float[np.ndarray, "*rest sizes settings"], x: Float[np.ndarray, "sizes settings"], size):
    """The slope on `size` of the x at which each size is best, from its mean scores."""
    best = means.argmax(axis=-1)
    inner = best.clip(1, x.shape[1] - 2)[..., None] + np.array([-1, 0, 1])
    y = np.take_along_axis(means, inner, axis=-1)
    left, middle, right = np.moveaxis(x[np.arange(len(x))[:, None], inner], -1, 0)
    a, b = (middle - left) * (y[..., 1] - y[..., 2]), (middle - right) * (y[..., 1] - y[..., 0])
    flat = (best == 0) | (best == x.shape[1] - 1) | (a == b)
    vertex = middle - ((middle - left) * a - (middle - right) * b) / (2 * np.where(flat, 1, a - b))
    peak = np.where(flat, x[np.arange(len(x)), best], vertex)
    centred = size - size.mean()
    return peak @ centred / (centred @ centred)
