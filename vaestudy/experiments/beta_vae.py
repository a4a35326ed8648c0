"""Stage 2: the sweep over β, the score and its controls, and β chosen from few labels or none."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from vaestudy import metrics, published
from vaestudy.data import Factors, ImageSet
from vaestudy.experiments.common import images, runs_root, sizes
from vaestudy.models import VAE
from vaestudy.settings import BetaVAESettings
from vaestudy.training import Grid, Job, Run, distributed, fit_many
from vaestudy.training import sweep as sweeps

SCORES = ("higgins", "factor_vae", "mig")
LINEAR_IMAGES = 20_000
ICA_FITS = 3


class Sweep(NamedTuple):
    """The trained β-VAEs and, beside them, models that are pressed in other ways."""

    runs: list[Run]
    others: list[Run]


class Examined(NamedTuple):
    """What the sweep is scored on: images, their factors, and the code of each model.

    Attributes:
        images: some or all of the data set.
        factors: of these images.
        classes: columns of the factors that the Higgins score names.
        codes: posterior means of each run of the sweep.
        some: 20,000 of the images, for what is fitted on pixels.
    """

    images: ImageSet
    factors: Int[np.ndarray, "n k"]
    classes: list[int]
    codes: list[np.ndarray]
    some: Int[np.ndarray, " m"]

    @property
    def names(self) -> tuple[str, ...]:
        return self.images.factors.names


def check(settings: BetaVAESettings) -> None:
    """Raise InputError for settings that cannot work together, before any work."""
    sizes(settings)


def seeds(settings: BetaVAESettings) -> tuple[int, ...]:
    """The seeds of the models."""
    return tuple(range(settings.seed, settings.seed + (settings.seeds or sizes(settings)["seeds"])))


def grid(settings: BetaVAESettings) -> Grid:
    """The sweep of β-VAEs: β = 1 and the β asked for are always in it."""
    betas = {*sizes(settings)["betas"], 1.0, *([settings.beta] if settings.beta else [])}
    return Grid(betas=tuple(sorted(betas)), latent_dims=sizes(settings)["latent_dims"], seeds=seeds(settings))


def other_grid(settings: BetaVAESettings) -> Grid:
    """Two other ways to press, annealed capacity and β-TCVAE, at the first latent size."""
    row = sizes(settings)
    return Grid(
        betas=row["correlation_betas"],
        capacities=row["capacities"],
        latent_dims=row["latent_dims"][:1],
        seeds=seeds(settings),
        objectives=("capacity", "total_correlation"),
    )


def network(settings: BetaVAESettings) -> dict[str, Any]:
    """What `VAE` takes beside the shape of the images, the latent size and the seed."""
    return {"width": sizes(settings)["width"], "network": settings.network, "likelihood": settings.likelihood}


def train_images(settings: BetaVAESettings) -> ImageSet:
    """What the models learn from."""
    return images(settings)


def jobs(settings: BetaVAESettings, whole: ImageSet) -> dict[str, list[Job]]:
    """Every training of the stage: of the sweep over β, and under other kinds of pressure."""
    where = (whole, sizes(settings)["training"], runs_root(settings))
    grids = {"sweep over β": grid(settings), "other pressures": other_grid(settings)}
    return {name: one.jobs(*where, **network(settings)) for name, one in grids.items()}


def train(settings: BetaVAESettings, whole: ImageSet) -> Sweep:
    """Train every model of both grids, or find them trained."""
    main, other = jobs(settings, whole).values()
    runs = fit_many([*main, *other])
    return Sweep(runs[: len(main)], runs[len(main) :])


def train_and_score(settings: BetaVAESettings) -> list[Run]:
    """Train the sweep, and put its scores into the records."""
    whole = images(settings)
    found = train(settings, whole)
    if distributed.rank() == 0:
        score(settings, examine(settings, whole, found.runs), found.runs)
        score(settings, examine(settings, whole, found.others), found.others)
    return [*found.runs, *found.others]


def examine(settings: BetaVAESettings, whole: ImageSet, runs: Sequence[Run]) -> Examined:
    """Encode the images that the scores are taken on."""
    seen = whole.subsample(sizes(settings)["grid_images"])
    names = enumerate(seen.factors.names)
    # The paper leaves the shape of dSprites out of the classes.
    classes = [k for k, name in names if (settings.dataset, name) != ("dsprites", "shape")]
    some = np.random.default_rng(settings.seed).permutation(len(seen))[:LINEAR_IMAGES]
    return Examined(seen, seen.factors.values(slice(None)), classes, sweeps.codes(runs, seen), some)


def score(settings: BetaVAESettings, examined: Examined, runs: Sequence[Run]) -> pd.DataFrame:
    """A row a model: its settings, where its training ended, and its scores, which its record keeps."""
    exam = {"seed": settings.seed, "classes": examined.classes, "pairs": settings.pairs, "only": SCORES}
    rows = []
    for run, codes in zip(runs, examined.codes, strict=True):
        known = run.record.get("scores", {})
        if known.get("settings") != exam | {"only": list(SCORES), "images": len(examined.images)}:
            values = metrics.scores(codes, examined.factors, **exam)
            known = {"settings": {**exam, "images": len(examined.images)}, **values}
            run.update_record(scores=known)
        rows.append({name: known[name] for name in SCORES})
    return pd.concat([sweeps.table(runs), pd.DataFrame(rows)], axis=1)


def best_beta(table: pd.DataFrame, metric: str = "higgins") -> float:
    """The β with the highest mean score over seeds."""
    return float(table.groupby("beta")[metric].mean().idxmax())


def linear_codes(examined: Examined, seed: int, components: int = 10) -> dict[str, list[metrics.LinearCode]]:
    """PCA and three fits of ICA to the pixels of some images."""
    pixels = pixels_of(examined)
    fits = [metrics.ica(pixels, components, seed=seed + number) for number in range(ICA_FITS)]
    return {"PCA": [metrics.pca(pixels, components, seed=seed)], "ICA": fits}


def pixels_of(examined: Examined) -> Float[np.ndarray, "m p"]:
    """The images of `examined.some`, flat."""
    return examined.images.batch(examined.some).flatten(1).numpy()


def untrained_codes(settings: BetaVAESettings, examined: Examined, latent_dim: int) -> list[np.ndarray]:
    """What the same networks give before training, one code a seed."""
    shape = examined.images.shape
    fresh = [VAE(shape, latent_dim=latent_dim, seed=seed, **network(settings)) for seed in seeds(settings)]
    return sweeps.codes([Run("", vae) for vae in fresh], examined.images)


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
    """The Higgins score of several codes for every L; `linear` are codes of `examined.some` alone."""
    exam = {"seed": settings.seed, "pairs": sizes(settings)["pairs"], "classes": examined.classes}
    whole = metrics.higgins_curve(list(codes.values()), examined.factors, **exam)
    part = metrics.higgins_curve(list(linear.values()), examined.factors[examined.some], **exam)
    return dict(zip((*codes, *linear), (*whole, *part), strict=True))


def reconstruction_and_score(table: pd.DataFrame) -> dict[str, float]:
    """How reconstruction and score go together over the models of one latent size."""
    sharp, good = table.loc[table["nll_nats"].idxmin()], table.loc[table["higgins"].idxmax()]
    return {
        "count": len(table),
        "correlation": float(spearmanr(-table["nll_nats"], table["higgins"]).statistic),
        "sharpest_beta": float(sharp["beta"]),
        "sharpest_score": float(sharp["higgins"]),
        "best_beta": float(good["beta"]),
        "best_score": float(good["higgins"]),
        "paid": float(good["nll_nats"] - sharp["nll_nats"]),
    }


def factors_known(examined: Examined, table: pd.DataFrame, seed: int) -> dict[float, Float[np.ndarray, " k"]]:
    """R² of each factor in the codes of each β, mean over seeds, read by nearest neighbours."""
    known = {}
    for beta, members in table.groupby("beta").groups.items():
        found = [metrics.knn_r2(examined.codes[i], examined.factors, seed=seed) for i in members]
        known[float(beta)] = np.mean(found, axis=0)
    return known


def paper_table(
    settings: BetaVAESettings,
    examined: Examined,
    whole_codes: Mapping[str, Sequence[np.ndarray]],
    some_codes: Mapping[str, Sequence[np.ndarray]],
) -> dict[str, dict[int, metrics.HigginsReport]]:
    """Scores over model and classifier seeds at two values of L; `some_codes` are of `examined.some` alone."""
    exam = {"seed": settings.seed, "classes": examined.classes, "classifier": sizes(settings)["classifier"]}
    reports = {}
    for codes_of, factors in ((whole_codes, examined.factors), (some_codes, examined.factors[examined.some])):
        for name, codes in codes_of.items():
            by_pairs = {
                pairs: metrics.higgins_report(codes, factors, pairs=pairs, **exam) for pairs in (settings.pairs, 64)
            }
            reports[name] = by_pairs
    return reports


def choices_of_beta(
    settings: BetaVAESettings, examined: Examined, table: pd.DataFrame, runs: Sequence[Run]
) -> dict[str, dict[float, float]]:
    """What all labels, few labels of two factors, and no labels say of each β (means over seeds).

    `table` holds the models of one latent size; its index numbers `runs` and `examined.codes`.
    """
    known, two = examined.some[: settings.labels], examined.classes[-2:]
    groups = {float(beta): list(members) for beta, members in table.groupby("beta").groups.items()}
    few = {
        i: metrics.higgins_score(
            examined.codes[i][known], examined.factors[known][:, two], seed=settings.seed, pairs=settings.pairs
        )
        for members in groups.values()
        for i in members
    }
    some = examined.images.select(examined.some)
    return {
        "all labels": {beta: float(table.loc[members, "higgins"].mean()) for beta, members in groups.items()},
        "weak labels": {beta: float(np.mean([few[i] for i in members])) for beta, members in groups.items()},
        "no labels (UDR)": {beta: agreement([runs[i] for i in m], some, settings.seed) for beta, m in groups.items()},
    }


def agreement(runs: Sequence[Run], seen: ImageSet, seed: int) -> float:
    """How far models that differ by their seed have found the same latents: the median of their UDR scores."""
    nats = [run.kl_by_latent(seen, np.arange(min(2000, len(seen))))[0] for run in runs]
    return float(np.median(metrics.udr(sweeps.codes(runs, seen), nats, seed=seed).scores))


def cost_of_choice(chosen: Mapping[str, Mapping[float, float]]) -> dict[str, tuple[float, float]]:
    """For each way to choose: its β, and how far that β's score is below the best one."""
    truth = chosen["all labels"]
    picks = {name: max(of, key=of.get) for name, of in chosen.items()}
    return {name: (beta, max(truth.values()) - truth[beta]) for name, beta in picks.items()}


def held_out_region(factors: Factors) -> dict[str, list[int]]:
    """What is held out to test new combinations: a last value of the first factor with half of the last one's."""
    first, last = factors.sizes[0], factors.sizes[-1]
    return {factors.names[0]: [first - 1], factors.names[-1]: list(range(last // 2, last))}


def new_combinations(
    settings: BetaVAESettings, whole: ImageSet, examined: Examined, betas: Sequence[float], latent_dim: int
) -> tuple[pd.DataFrame, list[Run]]:
    """Models trained without one region of the factor grid, examined inside and outside of it.

    Returns:
        a row a model and region (columns: those of the sweep's table, images, nll, higgins), and the runs.
    """
    rest, held = whole.hold_out(**held_out_region(whole.factors))
    combos = Grid(betas=tuple(sorted({1.0, *betas})), latent_dims=(latent_dim,), seeds=seeds(settings))
    runs = fit_many(combos.jobs(rest, sizes(settings)["training"], runs_root(settings), **network(settings)))
    some = examined.some
    regions = {"seen": rest.select(some % len(rest)), "never seen": held.select(np.unique(some % len(held)))}
    rows = []
    for where, part in regions.items():
        for member, run in zip(sweeps.table(runs).to_dict("records"), runs, strict=True):
            codes, factors = run.codes(part)
            vary = [k for k in examined.classes if len(np.unique(factors[:, k])) > 1]
            higgins = metrics.higgins_score(codes, factors[:, vary], seed=settings.seed, pairs=settings.pairs)
            rows.append(member | {"images": where, "nll": run.bound(part)["nll_nats"], "higgins": higgins})
    return pd.DataFrame(rows), runs


def headline(
    settings: BetaVAESettings, whole: ImageSet, reports: Mapping[str, Mapping[int, Any]], beta: float, latent_dim: int
) -> list[dict]:
    """The stage's rows on the report's first page, beside the published column."""
    source, rows = "Higgins et al. (2017), table 2: best half, L not stated", []
    for name in ("β-VAE", "VAE", "PCA", "true factors"):
        report = reports[name][settings.pairs]
        ours = f"{100 * report.mean:.1f} ± {100 * report.std:.1f}"
        quantity = f"Higgins score of {name}, L = {settings.pairs}, all seeds, %"
        rows.append({"quantity": quantity, "ours": ours, "published": published.HIGGINS[name], "source": source})
    normed = beta * latent_dim / whole.dims
    rows.append({"quantity": "β of that β-VAE, as β_norm", "ours": normed, "published": "0.0098", "source": "the same"})
    return rows
