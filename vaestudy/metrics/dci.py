"""DCI and DCI-ES: disentanglement, completeness, informativeness, explicitness and size from what predicts a factor."""

from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple, get_args

import numpy as np
import scipy.stats
from jaxtyping import Float, Int
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LassoCV

from vaestudy.errors import InputError
from vaestudy.metrics.table import Codes, Labels, Rows, Table

Importance = Literal["forest", "boosted_trees", "lasso"]


class DCI(NamedTuple):
    """Disentanglement (one factor per latent), completeness (one latent per factor), informativeness (accuracy)."""

    disentanglement: float
    completeness: float
    informativeness: float


def dci(
    codes: Codes,
    factors: Labels,
    *,
    seed: int,
    method: Importance = "forest",
    train: int = 10_000,
    test: int = 5_000,
) -> DCI:
    """Disentanglement, completeness and informativeness, each in [0, 1], from what predicts each factor.

    Eastwood & Williams (2018), sec. 2. `method` decides the importances, and scores of different methods do not
    compare: "boosted_trees" is disentanglement_lib's protocol (gradient boosting of each factor as a class; minutes
    on dSprites), "forest" the same with 10 random trees of depth 8 (seconds), "lasso" the paper's linear regression,
    which takes factors as ordered and may keep a stray weight where it predicts nothing. Informativeness is the mean
    test accuracy, for "lasso" the mean test R² (not below 0). Completeness counts all latents: a constant one raises
    the number among which a factor could have been spread.
    """
    if method not in (known := get_args(Importance)):
        raise InputError(f"method must be one of {', '.join(known)}, not {method!r}")
    learnt, unseen = Table.split(codes, factors, seed, train, test, live=True)
    fits = [_importance(learnt, unseen, k, method, seed) for k in range(factors.shape[1])]
    parts = dci_from_importance(np.stack([weights for weights, _ in fits], axis=1), codes.shape[1])
    return DCI(*parts, float(np.mean([quality for _, quality in fits])))


def _importance(
    learnt: Rows, unseen: Rows, factor: int, method: Importance, seed: int
) -> tuple[Float[np.ndarray, " d"], float]:
    """Importance of each latent for one factor, and how well the factor is predicted."""
    scale = np.ones(learnt.codes.shape[1])
    if method == "boosted_trees":
        model = GradientBoostingClassifier(random_state=seed)
    elif method == "forest":
        model = RandomForestClassifier(10, max_depth=8, max_features=None, random_state=seed)
    else:
        model, scale = LassoCV(cv=5), np.maximum(learnt.codes.std(axis=0, dtype=np.float64), 1e-12)
    model.fit(learnt.codes / scale, learnt.factors[:, factor])
    weights = np.abs(model.coef_) if method == "lasso" else model.feature_importances_
    return weights, max(0.0, float(model.score(unseen.codes / scale, unseen.factors[:, factor])))


def dci_from_importance(importance: Float[np.ndarray, "_ k"], latents: int) -> tuple[float, float]:
    """Disentanglement and completeness of a matrix of importances >= 0; 0 and 0 where all are 0.

    Each is one minus the normalised entropy of a row (column), weighted by the mass of the row (column). Rows of zeros
    make up the number of `latents`.
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
    trees: int = 20,
    train: int = 2_000,
    test: int = 1_000,
) -> DCIES:
    """DCI with the explicitness and the size of a code: Eastwood et al. (2023), sec. 3 and 4.

    Random forests of `trees` trees of rising depth predict each factor: a classifier those of the columns `unordered`
    (shape), a regressor all others. The loss of a factor is one minus test accuracy or R², falling to its least value
    so far as the depth rises. Explicitness is one minus the area between that curve and its end, over the triangle from
    the loss of a guess to 0, averaged over factors: 1 where the shallowest forest is as good as any. It is therefore
    high where nothing can be learned (.99 on noise): never read it without informativeness. The other parts are those
    of the depth with the best mean score, which is informativeness (a score below 0 counts 0). Size is the number of
    factors over the number of latents, constant ones included.
    """
    if min(depths, default=0) < 1 or list(depths) != sorted(set(depths)) or len(depths) < 2:
        raise InputError(f"depths must be two or more rising numbers from 1 on, not {list(depths)}")
    if not set(unordered) <= set(range(factors.shape[1])):
        raise InputError(f"unordered must name columns of 0 to {factors.shape[1] - 1}, not {list(unordered)}")
    learnt, unseen = Table.split(codes, factors, seed, train, test, live=True)
    scores = np.empty((len(depths), factors.shape[1]))
    importance = np.empty((len(depths), learnt.codes.shape[1], factors.shape[1]))
    for (i, depth), k in product(enumerate(depths), range(factors.shape[1])):
        forest = RandomForestClassifier if k in unordered else RandomForestRegressor
        model = forest(trees, max_depth=depth, random_state=seed).fit(learnt.codes, learnt.factors[:, k])
        scores[i, k] = model.score(unseen.codes, unseen.factors[:, k])
        importance[i, :, k] = model.feature_importances_
    best = scores.mean(axis=1).argmax()
    guess = np.array([1 - 1 / len(np.unique(v)) if k in unordered else 1 for k, v in enumerate(learnt.factors.T)])
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
