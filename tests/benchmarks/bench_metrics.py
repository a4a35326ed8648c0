"""Speed of the metrics on codes of the full dSprites grid: against their limit, and against one vote at a time.

The loops beside the vote metrics already read cached codes, which is kind to them: disentanglement_lib encodes the
images of every vote again.
"""

import time
from collections.abc import Callable

import numpy as np

from vaestudy import metrics
from vaestudy.metrics.votes import adagrad, logistic

SIZES, LATENTS, IMAGES = (3, 6, 40, 32, 32), 10, 64
LIMIT_SECONDS = 10  # for all vote and information metrics together, on two cores
STRIDES = np.array([245_760, 40_960, 1_024, 32, 1])


def rows() -> list[dict]:
    factors = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)
    rng = np.random.default_rng(0)
    codes = np.tanh(metrics.factor_codes(factors) @ rng.normal(size=(5, LATENTS)).astype(np.float32))
    return [*all_metrics(codes, factors), higgins(codes, factors), factor_vae(codes, factors), classifiers()]


def all_metrics(codes: np.ndarray, factors: np.ndarray) -> list[dict]:
    """One of each on the default sizes, then the counting ones on every row of the grid."""
    votes = (metrics.higgins_score, metrics.factor_vae_score)
    counts = (metrics.mig, metrics.modularity, metrics.irs, metrics.total_correlation)
    fits = (metrics.sap, metrics.explicitness)
    sampled = best(lambda: [metric(codes, factors, seed=0) for metric in votes + counts + fits])
    full = best(lambda: [metric(codes, factors, seed=0, points=None) for metric in counts])
    forest = best(lambda: metrics.dci(codes, factors, seed=0))
    of_grid = f"of {len(codes):,} x {LATENTS} codes"
    seen = np.random.default_rng(0).choice(len(codes), 15_000, replace=False)  # all that these metrics look at
    few, known = codes[seen], factors[seen]
    alone = [
        row(
            f"{metric.__name__} {of_grid}",
            best(lambda metric=metric: metric(codes, factors, seed=0)),
            "s",
            "the same of 15,000 rows",
            best(lambda metric=metric: metric(few, known, seed=0)),
        )
        for metric in counts + fits
    ]
    return [
        *alone,
        row(f"all metrics but DCI {of_grid}", sampled, "s", "the limit", LIMIT_SECONDS),
        row(f"MIG, modularity, IRS and TC from every row {of_grid}", full, "s", "the limit", LIMIT_SECONDS),
        row(f"DCI by forest {of_grid}", forest, "s", "the limit for the others", LIMIT_SECONDS),
    ]


def higgins(codes: np.ndarray, factors: np.ndarray, train: int = 10_000, test: int = 5_000) -> dict:
    """The score with its classifier, against drawing, copying a factor and averaging one vote at a time."""

    def loop() -> float:
        rng, features, labels = np.random.default_rng(0), [], []
        for _ in range(train + test):
            shared = rng.integers(len(SIZES))
            left, right = rng.integers(SIZES, size=(2, IMAGES, len(SIZES)))
            right[:, shared] = left[:, shared]
            features.append(np.abs(codes[left @ STRIDES] - codes[right @ STRIDES]).mean(axis=0))
            labels.append(shared)
        x, y = np.array(features, dtype=float), np.array(labels)
        return logistic(x[:train], y[:train]).score(x[train:], y[train:])

    ours = best(lambda: metrics.higgins_score(codes, factors, seed=0, pairs=IMAGES, train=train, test=test))
    return row(f"Higgins score, {train + test:,} votes", ours, "s", "one vote at a time", best(loop))


def factor_vae(codes: np.ndarray, factors: np.ndarray, votes: int = 15_000) -> dict:
    variance = codes.var(axis=0)

    def loop() -> None:
        rng, counts = np.random.default_rng(0), np.zeros((len(SIZES), LATENTS), dtype=int)
        for _ in range(votes):
            fixed = rng.integers(len(SIZES))
            drawn = rng.integers(SIZES, size=(IMAGES, len(SIZES)))
            drawn[:, fixed] = drawn[0, fixed]
            counts[fixed, (codes[drawn @ STRIDES].var(axis=0, ddof=1) / variance).argmin()] += 1

    ours = best(lambda: metrics.factor_vae_score(codes, factors, seed=0, images=IMAGES))
    return row(f"FactorVAE score, {votes:,} votes", ours, "s", "one vote at a time", best(loop))


def classifiers(models: int = 30, points: int = 2_000) -> dict:
    """The paper's 30 Adagrad classifiers as one stack, against one after another."""
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=points)
    features = rng.normal(size=(models, points, LATENTS)) + np.eye(4, LATENTS)[labels]
    stacked = best(lambda: adagrad(features, labels, seed=0), repeats=2)
    alone = best(lambda: [adagrad(features[i : i + 1], labels, seed=0) for i in range(models)], repeats=2)
    return row(f"{models} Adagrad classifiers of {points:,} points", stacked, "s", "one after another", alone)


def best(work: Callable, repeats: int = 3) -> float:
    return min(seconds(work) for _ in range(repeats))


def seconds(work: Callable) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def row(name: str, value: float, unit: str, peer: str, peer_value: float) -> dict:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "peer": peer,
        "peer_value": peer_value,
        "ratio": peer_value / value,
    }


if __name__ == "__main__":
    for line in rows():
        print("{name}: {value:,.3g} {unit}; {peer}: {peer_value:,.3g}; ratio {ratio:.3g}".format(**line))
