"""Linear softmax classifiers for the vote metrics: the paper's, trained by Adagrad, and a logistic regression."""

import warnings
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from vaestudy.errors import InputError

Classifier = Literal["logistic", "adagrad"]


def accuracies(
    features: Float[np.ndarray, "m n d"],
    labels: Int[np.ndarray, " n"],
    unseen: Float[np.ndarray, "m t d"],
    truth: Int[np.ndarray, " t"],
    *,
    seed: int,
    classifier: Classifier = "logistic",
    standardise: bool = False,
) -> Float[np.ndarray, " m"]:
    """Accuracy in [0, 1] on `unseen` of a linear classifier trained on `features`, for m problems with the same labels.

    `standardise` divides every feature by its standard deviation in the training set; neither the β-VAE paper nor
    disentanglement_lib does that.
    """
    if len(np.unique(labels)) <= truth.max():
        raise InputError(f"{len(labels)} training points leave a class without any: use a larger train")
    if standardise:
        scale = features.std(axis=1, keepdims=True)
        scale = np.where(scale > 0, scale, 1)
        features, unseen = features / scale, unseen / scale
    if classifier == "adagrad":
        weights, bias = adagrad(features, labels, seed=seed)
        guess = (unseen @ weights + bias).argmax(axis=-1)
    elif classifier == "logistic":
        guess = np.stack([logistic(x, labels).predict(z) for x, z in zip(features, unseen, strict=True)])
    else:
        raise InputError(f"classifier must be 'logistic' or 'adagrad', not {classifier!r}")
    return (guess == truth).mean(axis=1)


def logistic(features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]) -> LogisticRegression:
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
    features: Float[np.ndarray, "m n d"],
    labels: Int[np.ndarray, " n"],
    *,
    seed: int,
    rate: float = 1e-2,
    batch: int = 100,
    tolerance: float = 1e-3,
    patience: int = 10,
    max_epochs: int = 5000,
) -> tuple[Float[np.ndarray, "m d c"], Float[np.ndarray, "m 1 c"]]:
    """Weights and biases of m softmax layers, each trained by Adagrad from zero on its own features until it converges.

    Higgins et al. (2017), sec. A.4: one fully connected layer, negative log-likelihood, Adagrad at 1e-2, "until
    convergence". The paper states neither the minibatch nor the criterion. Here a layer has converged when its loss,
    averaged over `patience` epochs, is less than `tolerance` nats below that of the `patience` epochs before. The m
    layers see the rows in the same order and stop one by one: each comes out as if trained alone.
    """
    rng = np.random.default_rng(seed)
    x = np.concatenate([features, np.ones((*features.shape[:2], 1))], axis=2)
    onehot = np.eye(labels.max() + 1)[labels]
    weights = np.zeros((len(x), x.shape[2], onehot.shape[1]))
    squares = np.zeros_like(weights)
    active, before = np.arange(len(x)), np.full(len(x), np.inf)
    for _ in range(max_epochs // patience):
        inputs, w, s = x[active], weights[active], squares[active]
        loss = np.zeros(len(active))
        for _ in range(patience):
            for rows in np.array_split(rng.permutation(len(labels)), -(-len(labels) // batch)):
                loss += _adagrad_step(inputs[:, rows], onehot[rows], w, s, rate) / (patience * len(labels))
        weights[active], squares[active] = w, s
        falling = before[active] - loss > tolerance
        before[active] = loss
        active = active[falling]
        if not active.size:
            break
    else:
        still = f"{active.size} of {len(x)} classifiers still improve after {max_epochs} epochs of Adagrad"
        warnings.warn(still, stacklevel=2)
    return weights[:, :-1], weights[:, -1:]


def _adagrad_step(x: np.ndarray, onehot: np.ndarray, w: np.ndarray, s: np.ndarray, rate: float) -> np.ndarray:
    """One step on a minibatch, in place on the weights `w` and the summed squares `s`; returns the summed losses."""
    log_odds = log_softmax(x @ w, axis=-1)
    gradient = x.swapaxes(1, 2) @ ((np.exp(log_odds) - onehot) / x.shape[1])
    s += gradient**2
    w -= rate * gradient / (np.sqrt(s) + 1e-10)
    return -(log_odds * onehot).sum(axis=(1, 2))
