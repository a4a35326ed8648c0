"""Metrics that predict factors from codes: DCI, DCI-ES, SAP, explicitness and the nearest neighbours' R²."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Shaped
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LassoCV, LogisticRegression
from sklearn.metrics import log_loss, r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from vaestudy.errors import InputError, check_choice
from vaestudy.metrics.information import mean_gap
from vaestudy.metrics.table import Codes, Labels, Table, check_columns, correlation
from vaestudy.metrics.votes import logistic

Importance = Literal["forest", "boosted_trees", "lasso"]
Predictor = Literal["r2", "linear_svc"]


class DCI(NamedTuple):
    """Disentanglement (one factor per latent), completeness (one latent per factor), informativeness (accuracy)."""

    disentanglement: float
    completeness: float
    informativeness: float


def dci(
    codes: Codes, factors: Labels, *, seed: int, method: Importance = "forest", train: int = 10_000, test: int = 5_000
) -> DCI:
    """Disentanglement, completeness and informativeness, each in [0, 1], from what predicts each factor.

    Eastwood & Williams (2018), sec. 2. Scores by different methods do not compare: "boosted_trees" is
    disentanglement_lib's protocol (gradient boosting of each factor as a class; minutes on dSprites), "forest" the same
    with 10 random trees of depth 8 (seconds), "lasso" the paper's linear regression, which takes factors as ordered and
    may keep a stray weight where it predicts nothing. Informativeness is the mean test accuracy, for "lasso" the mean
    test R² (not below 0). Completeness counts constant latents: a factor could have been spread among them.
    """
    check_choice("method", method, get_args(Importance))
    x, z, known, truth = Table.split(codes, factors, seed, train, test, live=True)
    if method == "lasso":
        scale = np.maximum(x.std(axis=0, dtype=np.float64), 1e-12)
        x, z = x / scale, z / scale
    model = {
        "boosted_trees": GradientBoostingClassifier(random_state=seed),
        "forest": RandomForestClassifier(10, max_depth=8, max_features=None, random_state=seed),
        "lasso": LassoCV(cv=5),
    }[method]
    fits = [clone(model).fit(x, column) for column in known.T]
    weights = [np.abs(fit.coef_) if method == "lasso" else fit.feature_importances_ for fit in fits]
    quality = [max(0.0, fit.score(z, column)) for fit, column in zip(fits, truth.T, strict=True)]
    return DCI(*dci_from_importance(np.stack(weights, axis=1), codes.shape[1]), float(np.mean(quality)))


def dci_from_importance(importance: Float[np.ndarray, "_ k"], latents: int) -> tuple[float, float]:
    """Disentanglement (of rows) and completeness (of columns) of importances >= 0; 0 and 0 where all are 0.

    Rows of zeros make up the number of `latents`.
    """
    if latents < 2 or importance.shape[1] < 2:
        raise InputError("dci needs two latents and two factors or more")
    if not importance.any():
        return 0.0, 0.0
    importance = np.pad(importance, ((0, latents - len(importance)), (0, 0)))
    return _mean_purity(importance), _mean_purity(importance.T)


def _mean_purity(weights: Float[np.ndarray, "a b"]) -> float:
    """One minus the entropy of each row in units of a uniform row's, averaged with the row's sum as its weight."""
    sums = weights.sum(axis=1)
    rows = weights[sums > 0]
    return float(np.average(1 - scipy.stats.entropy(rows, axis=1) / np.log(weights.shape[1]), weights=sums[sums > 0]))


class DCIES(NamedTuple):
    """DCI with explicitness (how small a probe suffices; read it beside informativeness) and size (factors/latents)."""

    disentanglement: float
    completeness: float
    informativeness: float
    explicitness: float
    size: float


def dci_es(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    unordered: Sequence[int] = (0,),
    depths: Sequence[int] = (1, 2, 3, 4, 8, 10, 12, 14, 16, 18, 20, 32),
    train: int = 2_000,
    test: int = 1_000,
) -> DCIES:
    """DCI with the explicitness and the size of a code: Eastwood et al. (2023), sec. 3 and 4.

    Random forests of 20 trees of rising depth predict each factor: a classifier those of the columns `unordered`
    (shape), a regressor all others. The loss of a factor is one minus test accuracy or R², the least up to each depth.
    Explicitness is one minus the area between that curve and its end, over the triangle from the loss of a guess to 0,
    averaged over factors: 1 where the shallowest forest is as good as any, and so where nothing can be learned (.99 on
    noise): never read it without informativeness. The other parts are those of the depth with the best mean score,
    which is informativeness (not below 0). Size is factors over latents, constant ones included.
    """
    if min(depths, default=0) < 1 or list(depths) != sorted(set(depths)) or len(depths) < 2:
        raise InputError(f"depths must be two or more rising numbers from 1 on, not {list(depths)}")
    check_columns("unordered", unordered, factors.shape[1])
    x, z, known, truth = Table.split(codes, factors, seed, train, test, live=True)
    scores = np.empty((len(depths), factors.shape[1]))
    importance = np.empty((len(depths), x.shape[1], factors.shape[1]))
    for i, k in np.ndindex(scores.shape):
        forest = RandomForestClassifier if k in unordered else RandomForestRegressor
        model = forest(20, max_depth=depths[i], random_state=seed).fit(x, known[:, k])
        scores[i, k] = model.score(z, truth[:, k])
        importance[i, :, k] = model.feature_importances_
    best = scores.mean(axis=1).argmax()
    guess = np.array([1 - 1 / len(np.unique(v)) if k in unordered else 1 for k, v in enumerate(known.T)])
    return DCIES(
        *dci_from_importance(importance[best], codes.shape[1]),
        max(0.0, float(scores[best].mean())),
        float(explicitness_of_curves(1 - scores.T, np.array(depths), guess).mean()),
        factors.shape[1] / codes.shape[1],
    )


def explicitness_of_curves(
    losses: Float[np.ndarray, "k depths"], depths: Int[np.ndarray, " depths"], guess: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """Explicitness of each factor from the test loss at each depth, and the loss of a guess."""
    falling = np.minimum.accumulate(losses, axis=1)
    area = np.trapezoid(falling - falling[:, -1:], depths, axis=1)
    return 1 - area / (guess * (depths[-1] - depths[0]) / 2)


def sap(
    codes: Codes, factors: Labels, *, seed: int, method: Predictor = "r2", train: int = 10_000, test: int = 5_000
) -> float:
    """Separated attribute predictability in [0, 1]: the gap between the two latents that predict a factor best.

    Kumar et al. (2018), sec. 3. "r2" takes factors as ordered and predicts by a line (test rows unused); "linear_svc",
    disentanglement_lib's default for dSprites, takes them as classes, and even true factors score about 0.25, since
    a linear classifier of one number cannot carve 40 classes. The two do not compare. Constant codes score 0.
    """
    check_choice("method", method, get_args(Predictor))
    x, z, known, truth = Table.split(codes, factors, seed, train, test)
    scores = correlation(np.hstack([x, known]))[: x.shape[1], x.shape[1] :] ** 2
    for j, k in np.ndindex(scores.shape) if method == "linear_svc" else ():
        model = LinearSVC(C=0.01, class_weight="balanced", dual=False).fit(x[:, [j]], known[:, k])
        scores[j, k] = model.score(z[:, [j]], truth[:, k])
    return mean_gap(scores)


def explicitness(codes: Codes, factors: Labels, *, seed: int, train: int = 10_000, test: int = 5_000) -> float:
    """How well all latents together tell each value of a factor linearly: area under the ROC curve, 0.5 to 1.

    Ridgeway & Mozer (2018), sec. 2, as in disentanglement_lib: a softmax regression on standardised codes, one curve
    per value, averaged over values and then factors. Noise may fall just below 0.5. The paper maps 0.5 to 0.
    """
    x, z, known, truth = Table.split(codes, factors, seed, train, test, live=True)
    if not np.ptp(truth, axis=0).all():
        raise InputError(f"{len(z)} test rows leave a factor with one value: use a larger test")
    scaler, areas = StandardScaler().fit(x.astype(np.float64)), []
    x, z = (scaler.transform(rows.astype(np.float64)) for rows in (x, z))
    for learnt, values in zip(known.T, truth.T, strict=True):
        model = logistic(x, learnt)
        judged = np.isin(model.classes_, values)
        areas.append(roc_auc_score(values[:, None] == model.classes_[judged], model.predict_proba(z)[:, judged]))
    return float(np.mean(areas))


def knn_r2(
    codes: Codes, factors: Labels, *, seed: int, train: int = 10_000, test: int = 2_000
) -> Float[np.ndarray, " k"]:
    """R² of each factor read from the nearest neighbours in the code: 0 for guessing its mean, 1 for always right.

    What a code knows, wherever in it that stands: a rotation changes nothing. The mean value of the five nearest of
    `train` rows, as a number, is compared with the truth on `test` others, R² not below 0. A smaller table is split 4
    to 1. The latents keep their scale: leave out those that carry nothing (see `live`), or take draws of the posterior.
    Raises InputError for codes that are not finite, or fewer than 100 rows.
    """
    truth, guess = _by_neighbours(codes, factors, seed, train, test)
    scores = np.where(np.ptp(truth, axis=0) > 0, r2_score(truth, guess, multioutput="raw_values"), 0)
    return scores.clip(0, 1)


def angle_r2(codes: Codes, angles: Float[np.ndarray, " n"], kinds: Int[np.ndarray, " n"], *, seed: int) -> float:
    """The same of an angle in radians within each kind of thing, mean over kinds: read as its cosine and sine.

    A thing that looks alike after a k-th of a turn needs its angle times k: no code tells its turns apart.
    """
    points, scores = np.stack([np.cos(angles), np.sin(angles)], axis=1), []
    for rows in (kinds == kind for kind in np.unique(kinds)):
        truth, guess = _by_neighbours(codes[rows], points[rows], seed)
        scores.append(max(0.0, r2_score(truth, guess, multioutput="variance_weighted")))
    return float(np.mean(scores))


def _by_neighbours(
    codes: Codes, values: Shaped[np.ndarray, "n k"], seed: int, train: int = 10_000, test: int = 2_000
) -> tuple[Shaped[np.ndarray, "m k"], Float[np.ndarray, "m k"]]:
    """Values of rows held out, and the mean of their five nearest of the others."""
    if not np.isfinite(codes).all() or len(codes) < 100:
        raise InputError(f"nearest neighbours need 100 rows or more of finite codes, not {len(codes)}")
    if train + test > len(codes):
        train, test = 4 * len(codes) // 5, len(codes) // 5
    learnt, unseen = np.split(np.random.default_rng(seed).permutation(len(codes))[: train + test], [train])
    return values[unseen], KNeighborsRegressor(n_jobs=1).fit(codes[learnt], values[learnt]).predict(codes[unseen])


class ReadOut(NamedTuple):
    """What a linear classifier reads of one factor: accuracy in [0, 1], that of guessing, and information in nats."""

    accuracy: float
    chance: float
    nats: float


def read_out(
    codes: Codes, values: Int[np.ndarray, " n"], *, seed: int, points: int | None = 10_000, folds: int = 3
) -> ReadOut:
    """What a softmax regression on standardised codes reads of a factor on held-out folds of `points` rows (None: all).

    For one factor alone, such as a class label. The information is the log loss of guessing by frequency less that of
    the classifier: a lower bound of the mutual information, a little below 0 where a code says nothing. One row an
    image: two draws of one may not stand on both sides of a split. Values of fewer rows than folds are left out. Raises
    InputError where fewer than two values are left.
    """
    if points is not None and points < len(codes):
        rows = np.random.default_rng(seed).choice(len(codes), points, replace=False)
        codes, values = codes[rows], values[rows]
    _, target, counts = np.unique(values, return_inverse=True, return_counts=True)
    often = counts[target] >= folds
    codes, target = codes[often], np.unique(target[often], return_inverse=True)[1]
    if len(np.unique(target)) < 2:
        raise InputError(f"a read-out needs two values or more that {folds} rows have: merge values")
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=100, max_iter=1_000))
    guessed = cross_val_predict(model, codes.astype(np.float64), target, cv=split, method="predict_proba")
    frequencies = np.bincount(target) / len(target)
    nats = -(frequencies * np.log(frequencies)).sum() - log_loss(target, guessed)
    return ReadOut(float((guessed.argmax(axis=1) == target).mean()), float(frequencies.max()), float(nats))
