"""The metrics by votes, of the β-VAE paper and of FactorVAE's, and the linear classifiers of the former."""

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from vaestudy.errors import InputError, check_choice
from vaestudy.metrics.table import CHUNK, Codes, Labels, Models, Table, check_columns

Classifier = Literal["logistic", "adagrad"]  # the default; the paper's
Problems = Float[np.ndarray, "m n d"]
Classes = Int[np.ndarray, " n"]
Pairs = Int[np.ndarray, "points pairs"]  # rows of a table
PRUNE_STD = 0.05  # of a latent that FactorVAE's score leaves out
RATE = 1e-2  # of Adagrad


def higgins_score(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    classes: Sequence[int] | None = None,
    pairs: int = 64,
    train: int = 10_000,
    test: int = 5_000,
    classifier: Classifier = "logistic",
) -> float:
    """The disentanglement metric of the β-VAE paper: an accuracy in [0, 1] whose chance level is 1/classes.

    Higgins et al. (2017), sec. 3: a linear classifier tells which factor was shared by `pairs` pairs of images from
    the mean absolute difference of their codes, which are posterior means. It learns from `train` such averages and
    is tested on `test`. The paper's classes on dSprites are scale, orientation, x and y, and its classifier is
    "adagrad"; disentanglement_lib takes all factors (`classes=None`), 64 pairs and "logistic", whose penalty sees the
    scale: codes of a thousandth of the prior's are at chance. The paper leaves the number of pairs open, and entangled
    codes score anything between chance and 1 as it grows: see `higgins_curve`. Raises InputError for bad tables or
    settings.
    """
    settings = {"classes": classes, "train": train, "test": test, "classifier": classifier}
    return float(higgins_curve([codes], factors, seed=seed, pairs=[pairs], **settings)[0, 0])


def higgins_curve(
    codes: Models,
    factors: Labels,
    *,
    seed: int,
    pairs: Sequence[int] = (1, 2, 5, 10, 20, 50, 100, 200),
    classes: Sequence[int] | None = None,
    train: int = 10_000,
    test: int = 5_000,
    classifier: Classifier = "logistic",
) -> Float[np.ndarray, "codes pairs"]:
    """`higgins_score` of several codes of the same images for several numbers of pairs.

    All scores share one draw of images: a point of few pairs is made of the first pairs of a point of many.
    """
    if not pairs or min(*pairs, train, test) < 1:
        raise InputError(f"pairs, train and test must be 1 or more, not {list(pairs)}, {train} and {test}")
    tables, rng, width = [Table(code, factors) for code in codes], np.random.default_rng(seed), factors.shape[1]
    shared = np.array(check_columns("classes", range(width) if classes is None else classes, width, least=2))
    labels = rng.integers(len(shared), size=train + test)
    sizes = np.unique(pairs)
    first, second = pairs_of(tables[0], shared[labels], int(sizes[-1]), rng)
    live = [table.live_codes for table in tables]
    widths = np.array([code.shape[1] for code in live])
    scores = np.empty((len(codes), len(sizes)))
    for width in np.unique(widths):  # codes of one width are one stack of problems to the classifier
        members = np.flatnonzero(widths == width)
        points = np.concatenate([mean_differences(live[i], first, second, sizes) for i in members])
        accuracy = accuracies(points, labels, train, seed=seed, classifier=classifier)
        scores[members] = rearrange(accuracy, "(codes pairs) -> codes pairs", pairs=len(sizes))
    return scores[:, np.searchsorted(sizes, pairs)]


class HigginsReport(NamedTuple):
    """Scores of every model and classifier seed, and mean and standard deviation of all and of the "best" half.

    Higgins et al. (2017), sec. A.4, throw the lower half of 10 models x 3 classifiers away, which flatters.
    """

    scores: Float[np.ndarray, "models seeds"]
    mean: float
    std: float
    best_mean: float
    best_std: float

    @classmethod
    def of(cls, curves: Sequence[Float[np.ndarray, "models 1"]]) -> "HigginsReport":
        """What the scores by each classifier are together."""
        scores = np.concatenate(curves, axis=1)
        best = np.sort(scores, axis=None)[scores.size // 2 :]
        return cls(scores, *(float(f(part)) for part in (scores, best) for f in (np.mean, np.std)))


def pairs_of(table: Table, shared: Int[np.ndarray, " points"], n: int, rng: np.random.Generator) -> tuple[Pairs, Pairs]:
    """n pairs of rows a point: images that agree, within a pair, in the factor of their point."""
    first = rng.integers(len(table.codes), size=(len(shared), n))
    second = np.empty_like(first)
    for factor in np.unique(shared):
        points = np.flatnonzero(shared == factor)
        second[points] = table.alike(rng, int(factor), first[points])
    return first, second


def mean_differences(
    codes: Codes, first: Pairs, second: Pairs, sizes: Int[np.ndarray, " sizes"]
) -> Float[np.ndarray, "sizes points d"]:
    """Mean absolute difference over the first pairs of each point, for each number of pairs in `sizes`."""
    means = np.empty((len(sizes), len(first), codes.shape[1]))
    starts = np.concatenate([[0], sizes[:-1]])
    for points in np.array_split(np.arange(len(first)), 1 + first.size * codes.shape[1] // CHUNK):
        gaps = np.abs(np.take(codes, first[points], axis=0) - np.take(codes, second[points], axis=0))
        sums = np.add.reduceat(gaps, starts, axis=1, dtype=np.float64).cumsum(axis=1)
        means[:, points] = rearrange(sums, "points sizes d -> sizes points d") / sizes[:, None, None]
    return means


def factor_vae_score(
    codes: Codes, factors: Labels, *, seed: int, images: int = 64, train: int = 10_000, test: int = 5_000
) -> float:
    """Accuracy in [0, 1] of a majority vote: which factor was fixed, from the latent that varied least.

    Kim & Mnih (2018), sec. 4, with the sizes of disentanglement_lib: `images` images that share a value give one vote;
    `train` votes decide which factor each latent stands for (the first without any), `test` votes are judged. Latents
    with a standard deviation below .05 take no part; codes without any other score 0 by convention.
    """
    if min(images - 1, train, test) < 1:
        raise InputError(f"images must be 2 or more, train and test 1 or more, not {images}, {train} and {test}")
    check_columns("factors", range(factors.shape[1]), factors.shape[1], least=2)
    table, rng = Table(codes, factors), np.random.default_rng(seed)
    learnt, judged = (factor_vae_votes(table, rng, votes, images) for votes in (train, test))
    return float(judged[learnt.argmax(axis=0), np.arange(judged.shape[1])].sum() / test)


def factor_vae_votes(table: Table, rng: np.random.Generator, votes: int, images: int) -> Int[np.ndarray, "k d"]:
    """How often each latent, pruned ones too, varied least, relative to its variance, when each factor was fixed."""
    variance, width = table.codes.var(axis=0, ddof=1, dtype=np.float64), int(table.varying.sum())
    kept = np.flatnonzero(table.varying & (variance >= PRUNE_STD**2))
    counts = np.zeros((len(table.sizes), len(variance)), dtype=np.int64)
    fixed = rng.integers(len(table.sizes), size=votes)
    for factor in range(len(table.sizes)) if kept.size else ():
        anchors = rng.integers(len(table.codes), size=(fixed == factor).sum())
        for some in np.array_split(anchors, 1 + len(anchors) * images * width // CHUNK):
            rows = table.alike(rng, factor, np.broadcast_to(some, (images, len(some))))
            local = np.take(table.codes, rows, axis=0)[..., kept].var(axis=0, ddof=1)
            least = kept[(local / variance[kept]).argmin(axis=1)]
            counts[factor] += np.bincount(least, minlength=counts.shape[1])
    return counts


def accuracies(
    points: Problems, labels: Classes, train: int, *, seed: int, classifier: Classifier
) -> Float[np.ndarray, " m"]:
    """Accuracy in [0, 1], for m problems of the same labels, of learning from the first `train` points, on the others.

    Raises InputError for another classifier, and for a class without any point to learn from.
    """
    check_choice("classifier", classifier, get_args(Classifier))
    known, truth, learnt, unseen = labels[:train], labels[train:], points[:, :train], points[:, train:]
    if len(np.unique(known)) <= truth.max():
        raise InputError(f"{train} training points leave a class without any: use a larger train")
    if classifier == "adagrad":
        weights, bias = adagrad(learnt, known, seed=seed)
        guess = (unseen @ weights + bias).argmax(axis=-1)
    else:
        guess = np.stack([logistic(x, known).predict(z) for x, z in zip(learnt, unseen, strict=True)])
    return (guess == truth).mean(axis=1)


def logistic(features: Float[np.ndarray, "n d"], labels: Classes) -> LogisticRegression:
    """scikit-learn's softmax regression with its default penalty (C = 1), fitted until it converges, or with a warning.

    disentanglement_lib minimises the same loss but stops after 100 steps of lbfgs, converged or not; before
    scikit-learn 0.22 its classifiers were one against the rest, whose scores differ (explicitness of five rotated
    factors .942, here .988). With few weights Newton's method gets there in about ten steps; with many its Hessian
    costs more than it saves.
    """
    solver = "newton-cholesky" if features.shape[1] * (labels.max() + 1) <= 100 else "lbfgs"
    with threadpool_limits(1):  # products this small lose more to waking threads than they gain
        return LogisticRegression(solver=solver, max_iter=10_000).fit(features, labels)


def adagrad(
    features: Problems, labels: Classes, *, seed: int, batch: int = 100, tolerance: float = 1e-3, patience: int = 10
) -> tuple[Float[np.ndarray, "m d c"], Float[np.ndarray, "m 1 c"]]:
    """Weights and biases of m softmax layers, each trained by Adagrad from zero on its own features until it converges.

    Higgins et al. (2017), sec. A.4: Adagrad at 1e-2, "until convergence", without a minibatch or a criterion. Here a
    layer has converged when its loss, averaged over `patience` epochs, is less than `tolerance` nats below that of the
    `patience` epochs before. The m layers see the rows in the same order and stop one by one, each as if trained alone.
    """
    rng = np.random.default_rng(seed)
    x = np.concatenate([features, np.ones((*features.shape[:2], 1))], axis=2)
    onehot = np.eye(labels.max() + 1)[labels]
    weights = np.zeros((len(x), x.shape[2], onehot.shape[1]))
    squares = np.zeros_like(weights)
    active, before = np.arange(len(x)), np.full(len(x), np.inf)
    for _ in range(5_000 // patience):
        inputs, w, s = x[active], weights[active], squares[active]
        loss = np.zeros(len(active))
        for _ in range(patience):
            for rows in np.array_split(rng.permutation(len(labels)), -(-len(labels) // batch)):
                some = inputs[:, rows]
                log_odds = log_softmax(some @ w, axis=-1)
                gradient = some.swapaxes(1, 2) @ ((np.exp(log_odds) - onehot[rows]) / len(rows))
                s += gradient**2
                w -= RATE * gradient / (np.sqrt(s) + 1e-10)
                loss -= (log_odds * onehot[rows]).sum(axis=(1, 2)) / (patience * len(labels))
        weights[active], squares[active] = w, s
        falling = before[active] - loss > tolerance
        before[active] = loss
        active = active[falling]
        if not active.size:
            break
    else:
        warnings.warn(f"{active.size} of {len(x)} classifiers still improve after 5,000 epochs", stacklevel=2)
    return weights[:, :-1], weights[:, -1:]
