"""The forms that choose a setting: the best of several, a choice judged on other seeds, and where the best one lies."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vaestudy.claims import statistics
from vaestudy.claims.forms import Above, Contrast, Form, Positive, Sides, picked, taken
from vaestudy.claims.records import Draw, NotTestable, Records, Units, Where, once
from vaestudy.claims.statistics import DRAWS, Estimate, Tails


@dataclass(frozen=True)
class BestOf(Form):
    """k·min: at one setting of `over` at least the score is above that of a base; the choice is inside the test.

    The base is the setting `base`, the candidates are those above it, from `least` on. Or, with `held`, the base is the
    last setting at which every model holds `held` nats, and the candidates lie between `base` and it: the score falls
    again. The opposite, which `contrary` claims, is that every candidate is below the base, by the largest p (IUT).
    """

    where: Where
    value: str
    base: float = 1.0
    least: float = 0.0
    held: float | None = None
    over: str = "beta"
    contrary: bool = False

    @property
    def text(self) -> str:
        if self.contrary:
            return "IUT: the largest P2 of the base against k settings"
        return "k·min: the least P2 of k settings against the base, times k"

    def units(self, records: Records) -> Units:
        values = records.grid(self.where, self.over)
        grid = [value for value in values if value == self.base or (value > self.base and value >= self.least)]
        least = 2 if self.held is None else 3
        if self.base not in grid or len(grid) < least:
            own = ", ".join(map("{:g}".format, grid)) or "none"
            raise NotTestable(f"too few values of {self.over} have models enough for a test, {least} at least: {own}")
        keys = [(*self.where, (self.over, value)) for value in grid]
        return dict(zip(keys, records.sweep(self.where, self.over, grid).T, strict=True))

    def estimate(self, draw: Draw) -> Estimate:
        scores, base, candidates, _ = self._compared(draw)
        parts = [statistics.welch(values, base) for values in scores]
        best = picked(parts, lambda effects: np.where(candidates, effects, -np.inf).argmax(axis=0))
        return best._replace(effect=-best.effect) if self.contrary else best

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        scores, base, candidates, pieces = self._compared(draw)
        if draw.times == 2:
            # Where several settings are nearly best, the best of a resample lies above the best of the models, already
            # the luckiest: the base is raised until both agree on average.
            best = self.estimate(once(draw.records, draw.units)).effect
            base = base + np.abs(self.estimate(draw).effect.mean() - best)
        p = np.array([statistics.two_setting_p(values, base, pieces, draws) for values in scores])
        up = np.where(candidates, p[:, 0], 1).min(axis=0) * candidates.sum(axis=0)
        down = np.where(candidates, p[:, 1], 0).max(axis=0)
        tails = np.where(candidates.any(axis=0), [np.minimum(1, up), down], 1)
        return tuple(tails[::-1] if self.contrary else tails)

    def chooses(self, draw: Draw) -> bool:
        return self.held is not None or len(draw.units) > 2

    def choices(self, draw: Draw) -> int:
        return 1 if self.contrary else int(self._compared(draw)[2].sum(axis=0).max())

    def least_p(self, draw: Draw) -> float:
        return self.choices(draw) / statistics.labelling_count(*self._compared(draw)[-1])

    def _compared(self, draw: Draw):
        """Scores (settings, samples, models), those of the base, which are candidates in each sample, and pieces."""
        keys = [key for key in draw.units if key[:-1] == self.where]
        scores, places = np.array([draw.values(self.value, key) for key in keys]), np.arange(len(keys))
        candidates, pieces = np.repeat(places[:, None] > 0, scores.shape[1], axis=1), draw.pieces(*keys[:2])
        if self.held is None:
            return scores, scores[0], candidates, pieces
        held = [(draw.values("nats", key, stretch=False) >= self.held).all(axis=1) for key in keys]
        last = np.where(held, places[:, None], 0).max(axis=0)
        if last[0] < 2 and draw.times == 0:
            raise NotTestable(f"between {self.over} = {self.base} and the last that keeps {self.held} nats lies none")
        return scores, taken(scores, last), candidates & (places[:, None] < last), pieces


@dataclass(frozen=True)
class Chosen(Contrast):
    """A setting is chosen on half of the seeds (A) by the mean of `by`; the other half (B) judges its score.

    Against the models of the setting `fits`, the setting chosen by the column `rival`, the setting `base`; or, where
    none is given, 0 by sign-flips. A rival that chooses `base` is not counted.
    """

    where: Where
    by: str
    value: str
    fits: Where = ()
    rival: str = ""
    base: float | None = None
    over: str = "beta"

    def chooses(self, draw: Draw) -> bool:
        return True

    @property
    def text(self) -> str:
        return f"chosen on every second seed, judged on the others; {(Positive if self._against_zero else Above).text}"

    @property
    def _against_zero(self) -> bool:
        return not (self.fits or self.rival or self.base is not None)

    def units(self, records: Records) -> Units:
        grid = records.grid(self.where, self.over)
        rows = records.sweep(self.where, self.over, grid)
        if self._against_zero and len(rows[1::2]) < 10:
            raise NotTestable(f"{len(rows[1::2])} models judge where sign-flips need ten")
        if self.base is not None and self.base not in grid:
            raise NotTestable(f"no model has {self.over} = {self.base}")
        return {"A": rows[::2], "B": rows[1::2]} | ({self.fits: records.rows(self.fits)} if self.fits else {})

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        no_comparison = self._places(draw)[2]
        up, down = super().tails(draw, draws)
        return np.where(no_comparison, 1, up), np.where(no_comparison, 1, down)

    def sides(self, draw: Draw) -> Sides:
        scores = np.moveaxis(draw.values(self.value, "B"), 2, 0)
        chosen, rival, _ = self._places(draw)
        own = taken(scores, chosen)
        if self._against_zero:
            return own, None, None
        other = draw.values(self.value, self.fits) if self.fits else taken(scores, rival)
        return own, other, draw.pieces("B", self.fits or "B")

    def _places(self, draw: Draw):
        """The place of the setting chosen on A and of its rival, and where they are no comparison."""
        chosen = draw.values(self.by, "A").mean(axis=1).argmax(axis=1)
        if self.base is None:
            return chosen, chosen, np.zeros(len(chosen), bool)
        base = np.full_like(chosen, draw.records.grid(self.where, self.over).index(self.base))
        if not self.rival:
            return chosen, base, chosen == base
        rival = draw.values(self.rival, "A").mean(axis=1).argmax(axis=1)
        if draw.times == 0 and rival[0] == base[0]:
            raise NotTestable(f"not counted: {self.rival} chooses {self.over} = {self.base}")
        return chosen, rival, (chosen == rival) | (rival == base)


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
        return {self.where: np.stack(sweeps, axis=1)}

    def estimate(self, draw: Draw) -> Estimate:
        values, x, size = self._points(draw)
        spread = self._slopes(draw, 199).std(axis=1, ddof=1)
        return Estimate(_peak_slope(values.mean(axis=1), x, size), spread, np.full(len(values), values.shape[1] - 1.0))

    def tails(self, draw: Draw, draws: int = DRAWS) -> Tails:
        slopes = self._slopes(draw, draws // 10)
        count = slopes.shape[1] + 1
        return (1 + (slopes <= 0).sum(axis=1)) / count, (1 + (slopes >= 0).sum(axis=1)) / count

    def interval(self, draw: Draw) -> tuple[float, float]:
        return tuple(np.quantile(self._slopes(draw, DRAWS // 10)[0], [0.025, 0.975]))

    def _points(self, draw: Draw):
        over, size = (draw.records.column(name)[draw.units[self.where][0]] for name in (self.over, self.size))
        return draw.values(self.value, self.where), np.log(over), np.log(size[:, 0])

    def _slopes(self, draw: Draw, resamples: int):
        """The slope in `resamples` resamples of the seeds of each sample."""
        values, x, size = self._points(draw)
        n = values.shape[1]
        weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), resamples) / n
        blocks = np.array_split(values, -(-len(values) // max(1, 2_000_000 // (resamples * x.size))))
        return np.concatenate([_peak_slope(np.tensordot(weights, b, (1, 1)).swapaxes(0, 1), x, size) for b in blocks])


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
