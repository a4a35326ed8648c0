"""Codes that are no model's: PCA, ICA, the true factors, a rotation, noise. A score means little without them."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning

from vaestudy.errors import InputError


@dataclass(frozen=True, eq=False)
class LinearCode:
    """A linear map from pixels (n, p) to codes (n, d), and whether the search for it converged."""

    mean: Float[np.ndarray, " p"]
    weights: Float[np.ndarray, "p d"]
    converged: bool = True

    def encode(self, images: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n d"]:
        """Codes of flat images in the same units as those of the fit."""
        return (images @ self.weights - self.mean @ self.weights).astype(images.dtype)


def pca(images: Float[np.ndarray, "n p"], components: int = 10, *, seed: int, rows: int = 20_000) -> LinearCode:
    """Principal components with unit variance, the largest first, from `rows` of the images drawn without replacement.

    Higgins et al. (2017), table 2: 10 components of whitened dSprites pixels, which keep 60.8 % of their variance.
    """
    images = _some(images, components, seed, rows)
    fit = PCA(components, whiten=True, svd_solver="randomized", iterated_power=7, random_state=seed).fit(images)
    weights = fit.components_ / np.sqrt(np.maximum(fit.explained_variance_, 1e-12))[:, None]
    return LinearCode(fit.mean_, np.ascontiguousarray(weights.T))


def ica(images: Float[np.ndarray, "n p"], components: int = 10, *, seed: int, rows: int = 20_000) -> LinearCode:
    """Independent components (FastICA) of unit variance: a rotation of the `pca` of the same rows.

    The paper fitted on pairs of shapes in turn, for memory, and averaged the scores. On dSprites the iteration may go
    on among rotations that are all but equally independent: the code then says that it has not converged.
    """
    whitened = pca(images, components, seed=seed, rows=rows)
    fit = FastICA(whiten=False, max_iter=1000, tol=1e-4, random_state=seed)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # the code says it
        fit.fit(whitened.encode(_some(images, components, seed, rows)).astype(np.float64))
    weights = (whitened.weights @ fit.components_.T).astype(whitened.weights.dtype)
    return LinearCode(whitened.mean, weights, converged=fit.n_iter_ < fit.max_iter)


def _some(images: np.ndarray, components: int, seed: int, rows: int) -> np.ndarray:
    if not 1 <= components < (least := min(len(images), rows, images.shape[1])):
        raise InputError(f"components must be 1 or more and below the {least} rows or pixels, not {components}")
    if rows >= len(images):
        return images
    return images[np.sort(np.random.default_rng(seed).choice(len(images), rows, replace=False))]


def factor_codes(factors: Integer[np.ndarray, "n k"], without: int | None = None) -> Float[np.ndarray, "n _"]:
    """The true factors as codes of mean 0 and variance 1: a perfect code, or, `without` one column, all but that."""
    kept = factors if without is None else np.delete(factors, without, axis=1)
    scale = kept.std(axis=0)
    return ((kept - kept.mean(axis=0)) / np.where(scale > 0, scale, 1)).astype(np.float32)


def rotated(codes: Float[np.ndarray, "n d"], *, seed: int) -> Float[np.ndarray, "n d"]:
    """The codes under a random rotation or reflection: entangled, how much is chance, so show several."""
    gaussian = np.random.default_rng(seed).normal(size=(codes.shape[1], codes.shape[1]))
    return codes @ np.linalg.qr(gaussian)[0].astype(codes.dtype)


def independent_seeds(seed: int, count: int) -> list[int]:
    """Seeds of several rotations or classifiers from a single one."""
    return np.random.SeedSequence(seed).generate_state(count).tolist()


def noise_codes(n: int, d: int, *, seed: int) -> Float[np.ndarray, "n d"]:
    """Codes N(0, 1) that know nothing of any image: the floor of every metric."""
    return np.random.default_rng([seed, 1]).standard_normal((n, d), dtype=np.float32)
