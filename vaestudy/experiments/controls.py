"""What scores of stage 2 stand beside: linear codes of pixels, untrained networks, codes known to be good or bad."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from vaestudy import metrics, published, words
from vaestudy.experiments import beta_vae_parts as parts
from vaestudy.experiments import evidence
from vaestudy.experiments.beta_vae import PAPER_MODELS, seeds, some
from vaestudy.experiments.common import seeds_from, sizes
from vaestudy.experiments.scores import Examined, Reports, kl_of_some, live_codes, score, threaded
from vaestudy.models import VAE
from vaestudy.settings import BetaVAESettings
from vaestudy.training import Run, sweep

FITS = 3  # of PCA and of ICA
CLASSIFIERS = 3  # by whom each code is judged
WIDE = 200  # columns of a code
Codes = Mapping[str, Sequence[np.ndarray]]


def scores_of(settings: BetaVAESettings, examined: Examined, codes: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The score of the page for each of some codes of `some`."""
    part = examined._replace(factors=examined.factors[some(examined)])
    return {name: score(code, part, settings.seed, settings.pairs) for name, code in codes.items()}


def linear_codes(examined: Examined, seed: int) -> dict[str, list[metrics.LinearCode]]:
    """Three fits of PCA, each to other images, and three of ICA to the pixels of `some`."""
    pixels, count, fits = pixels_of(examined), parts.COMPONENTS, seeds_from(seed, FITS)
    rows = {own: parts.pixel_rows(examined.images, own) for own in fits}
    return {
        "PCA": [metrics.pca(examined.images.batch(rows[own]).flatten(1).numpy(), count, seed=own) for own in fits],
        "ICA": [metrics.ica(pixels, count, seed=own) for own in fits],
    }


def pixels_of(examined: Examined) -> Float[np.ndarray, "m p"]:
    """The images of `some`, flat."""
    return examined.images.batch(some(examined)).flatten(1).numpy()


def untrained_codes(settings: BetaVAESettings, examined: Examined, latent_dim: int) -> list[np.ndarray]:
    """What the same networks give before training, one code a seed, of as many as the paper's table has."""
    shape, layers = examined.images.shape, parts.network(evidence.page_sizes(settings))
    fresh = [VAE(shape, latent_dim=latent_dim, seed=seed, **layers) for seed in seeds(settings)[:PAPER_MODELS]]
    return sweep.codes([Run("", vae) for vae in fresh], examined.images)


def control_codes(examined: Examined, seed: int, latent_dim: int) -> dict[str, np.ndarray]:
    """Codes that are known to be good or bad: the factors, all but one of them, a rotation of them, and noise."""
    truth, left_out = metrics.factor_codes(examined.factors), examined.classes[0]
    return {
        "true factors": truth,
        f"without {examined.names[left_out]}": metrics.factor_codes(examined.factors, without=left_out),
        "rotated factors": metrics.rotated(truth, seed=seed),
        "noise": metrics.noise_codes(len(examined.images), latent_dim, seed=seed),
    }


def score_curves(
    settings: BetaVAESettings, examined: Examined, codes: Mapping[str, np.ndarray], linear: Mapping[str, np.ndarray]
) -> dict[str, Float[np.ndarray, " pairs"]]:
    """The Higgins score of several codes for every L, none for one factor; `linear` are codes of `some` alone."""
    if len(examined.classes) < 2:
        return {}
    exam = {"seed": settings.seed, "pairs": sizes(settings)["curve_pairs"], "classes": examined.classes}
    whole = metrics.higgins_curve(list(codes.values()), examined.factors, **exam)
    part = metrics.higgins_curve(list(linear.values()), examined.factors[some(examined)], **exam)
    return dict(zip((*codes, *linear), (*whole, *part), strict=True))


def beside_paper(reports: Reports, pairs: int) -> dict[str, Any]:
    """How far β-VAE and VAE are apart in percent: in the paper, and in the table at two values of L; its models."""
    pressed, plain = (reports[name] for name in ("β-VAE", "VAE"))
    high, low = (float(published.HIGGINS[name].split()[0]) for name in ("β-VAE", "VAE"))
    gains = {count: 100 * (pressed[count].mean - plain[count].mean) for count in (pairs, 64)}
    models = words.counted(min(len(own[pairs].scores) for own in (pressed, plain)), "model")
    found = {"paper_beta_vae": high, "paper_vae": low, "paper_apart": high - low}
    return found | {"at_few": gains[pairs], "at_many": gains[64], "models": models}


def of_live(run: Run, codes: np.ndarray, examined: Examined) -> np.ndarray:
    """The live latents of a model's code."""
    return live_codes(codes, kl_of_some(run, examined.images))


def paper_table(settings: BetaVAESettings, examined: Examined, whole_codes: Codes, some_codes: Codes) -> Reports:
    """Scores over model and classifier seeds at two values of L; `some_codes` are of `some` alone.

    Codes as wide as pixels get the first L alone: 64 pairs of them cost minutes. Empty where one factor alone is known.
    """
    if len(examined.classes) < 2:
        return {}
    exam = {"classes": examined.classes, "classifier": sizes(settings)["classifier"]}
    wanted = []  # that of the pixels first, which takes the longest
    for codes_of, factors in ((some_codes, examined.factors[some(examined)]), (whole_codes, examined.factors)):
        for name, codes in codes_of.items():
            counts = (settings.pairs,) if codes[0].shape[1] > WIDE else (settings.pairs, 64)
            wanted += [(name, pairs, codes, factors) for pairs in counts]
    seeds = metrics.independent_seeds(settings.seed, CLASSIFIERS)

    def scores(seed: int, pairs: int, codes: Sequence[np.ndarray], factors: np.ndarray) -> np.ndarray:
        return metrics.higgins_curve(codes, factors, seed=seed, pairs=[pairs], **exam)

    found = iter(threaded(scores, [(seed, *arguments) for _, *arguments in wanted for seed in seeds]))
    reports = {name: {} for name in (*whole_codes, *some_codes)}
    for name, pairs, *_ in wanted:
        reports[name][pairs] = metrics.HigginsReport.of([next(found) for _ in seeds])
    return reports
