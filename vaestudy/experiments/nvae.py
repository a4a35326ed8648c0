"""Stage 3: NVAE at two β and a flat VAE beside them, and what each of its latent groups knows."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vaestudy import data, metrics, published
from vaestudy.data import ImageSet
from vaestudy.errors import InputError
from vaestudy.experiments import evidence, group_scores, hierarchy
from vaestudy.experiments.common import checked, dataset, headline_row, pressed, runs_root, scorable, sizes, some_rows
from vaestudy.experiments.scores import classes_of, read_out_row, threaded
from vaestudy.metrics.table import Codes, Labels
from vaestudy.models import NVAE, VAE, NVAEConfig
from vaestudy.settings import NVAESettings
from vaestudy.training import Job, Run, Training, distributed, fit, fit_many
from vaestudy.training.listing import open_run
from vaestudy.words import known_with_reservations, label


class Runs(NamedTuple):
    """The stage's trained models: NVAEs by β, and the flat VAE."""

    nvae: dict[float, Run]
    flat: Run

    def named(self) -> dict[str, Run]:
        """NVAEs and the flat VAE under the names that the figures give them."""
        return {**{f"NVAE, β = {beta:g}": run for beta, run in self.nvae.items()}, "flat VAE": self.flat}


def image_side(settings: NVAESettings) -> int | None:
    """The side asked for, the profile's if the images come in it, or the set's first one that the network takes."""
    if settings.image_size:
        return settings.image_size
    info, own = data.about(dataset(settings), settings.data_dir or None), sizes(settings)["image_size"]
    for side in (own,) if own in info.image_sizes else info.image_sizes:
        with suppress(InputError):
            config(settings, (info.channels, side, side))
            return side
    return None


def check(settings: NVAESettings) -> None:
    """Raise InputError for settings that cannot work together, before any work."""
    config(settings, checked(settings, image_side(settings), train=2, test=2))


def config(settings: NVAESettings, shape: tuple[int, int, int]) -> NVAEConfig:
    """The network for images of this shape: a preset asked for as it is, the profile's for grey images, too."""
    row, bits = sizes(settings), {"bits": settings.bits} if settings.bits else {}
    fields = {"shape": shape, "seed": settings.seed, "checkpoint": row["checkpoint"], **bits}
    if shape[0] == 1 and not settings.preset:
        return replace(NVAEConfig.preset(row["preset"]), likelihood="bernoulli", **fields)
    return NVAEConfig.preset(settings.preset or row["preset"], **fields)


def train_and_test(settings: NVAESettings) -> tuple[ImageSet, ImageSet]:
    """Images to train on and held-out ones, at the bits of the network."""
    where = {"image_size": image_side(settings), "data_dir": settings.data_dir or None}
    parts = data.train_and_test(dataset(settings), sizes(settings)["test_images"], **where)
    network = config(settings, parts[0].shape)
    # Only the mixture sees levels; pixels of other likelihoods are taken as they are.
    return tuple(part.quantized(network.bits) for part in parts) if network.likelihood == "mixture" else parts


def betas(settings: NVAESettings) -> tuple[float, ...]:
    """1, the β asked for, and what the profile adds."""
    return tuple(sorted({1.0, settings.beta, *sizes(settings)["betas"]}))


def training(settings: NVAESettings, beta: float) -> Training:
    """The training of the NVAE at one β."""
    return pressed(sizes(settings)["training"], settings.seed, beta=beta)


def trained_how(settings: NVAESettings) -> str:
    """The optimiser of these NVAEs, and what is charged for their groups while the KL terms warm up, in words."""
    recipe = training(settings, 1.0)
    own = "balance" if recipe.objective.balance else "top_first" if recipe.objective.group_kl_anneal else "none"
    return f"{label(recipe.optimizer)}, {hierarchy.SCHEDULE_WORDS[own]} while the KL terms warm up"


def flat_model(settings: NVAESettings, shape: tuple[int, int, int]) -> VAE:
    """A plain VAE with the likelihood of the NVAE: convolutional, or fully connected where no convolutions fit."""
    like, row = config(settings, shape), sizes(settings)["flat"]
    same = {"likelihood": like.likelihood, "mixtures": like.mixtures, "bits": like.bits, "seed": settings.seed}
    try:
        return VAE(shape, network="conv", **same, **row)
    except InputError:  # sides that are no power of two, MNIST's 28 for one
        return VAE(shape, network="mlp", **same, latent_dim=row["latent_dim"])


def jobs(settings: NVAESettings, train_set: ImageSet) -> dict[str, list[Job]]:
    """Every training of the page: an NVAE for each β, and the flat VAE."""
    shape, flat = train_set.shape, replace(sizes(settings)["flat_training"], seed=settings.seed)
    job = partial(Job.below, runs_root(settings), "nvae")
    nvaes = [job(NVAE(config(settings, shape)), train_set, training(settings, beta)) for beta in betas(settings)]
    return {"NVAE": nvaes, "flat VAE": [job(flat_model(settings, shape), train_set, flat)]}


def train(settings: NVAESettings, train_set: ImageSet) -> Runs:
    """Train everything that the page shows, side by side on the cores of a CPU, or find it trained."""
    wanted = [job for alike in jobs(settings, train_set).values() for job in alike]
    evidence.adopt_published(wanted, settings.profile)
    runs = fit_many(wanted)
    return Runs(dict(zip(betas(settings), runs[:-1], strict=True)), runs[-1])


def published_run(runs: Runs) -> dict[str, Run]:
    """The published NVAE at β = 1 that has seen more of these very images than the page's own, by its name."""
    (_, own, *_), seen = runs.nvae[1.0].config, runs.nvae[1.0].recipe["images"]
    for path in sorted((evidence.folder("published/night") / "runs").glob("nvae-*")):
        model, images, recipe = json.loads((path / "config.json").read_text())
        same = all(images["ImageSet"][name] == own["ImageSet"][name] for name in ("name", "shape", "bits"))
        if same and "NVAE" in model and recipe["objective"]["beta"] == 1.0 and recipe["images"] > seen:
            return {f"NVAE, β = 1, of this study's night, {recipe['images']:,} images": open_run(path)}
    return {}


def train_and_score(settings: NVAESettings) -> list[Run]:
    """Train everything, and put the bound and the scores of each latent group into the record of each NVAE.

    Processes that `torchrun` has started train the NVAEs alone, and leave the flat VAE to one process.
    """
    train_set, test_set = train_and_test(settings)
    if distributed.world() > 1:
        found = [fit(*job) for job in jobs(settings, train_set)["NVAE"]]
    else:
        found = list(train(settings, train_set).nvae.values())
    for beta, run in zip(betas(settings), found, strict=True) if distributed.rank() == 0 else []:
        groups = group_table(settings, {f"β = {beta:g}": run}, train_set)
        run.update_record(test=run.bound(test_set), scores_by_group=groups)
    return found


def held_out_bounds(settings: NVAESettings, runs: Mapping[str, Run], test_set: ImageSet) -> pd.DataFrame:
    """A row a model: nats per image, bits per dimension (importance-weighted, too), its weights and its training."""
    row, rows = sizes(settings), []
    some = test_set.select(slice(0, row["weighted_images"]))
    for name, run in runs.items():
        weighted = metrics.importance_weighted_ladder(run.log_weights(some, row["weights"]), [row["weights"]]).mean()
        tight = metrics.bits_per_dim(-weighted, test_set.dims)
        about = {f"bits, K = {row['weights']}": tight, "images seen": run.record["training"]["images_seen"]}
        weights = sum(parameter.numel() for parameter in run.model.parameters())
        about |= {"weights": weights, "seconds": run.provenance["seconds"]}
        rows.append({"model": name, **run.bound(test_set), **about})
    return pd.DataFrame(rows)


def group_table(settings: NVAESettings, runs: Mapping[str, Run], images: ImageSet) -> list[dict]:
    """A row a model, latent group and form of its code, scored from posterior draws of some images.

    The forms: the whole map, its principal components, and its mean over space. No rows where no factor can be scored;
    where one can, a class label say, what a linear read-out tells of it.
    """
    row = sizes(settings)
    seen = images.select(some_rows(images, row["scored_images"]))  # the first ones may be all alike
    kept, seen = scorable(seen), seen.compact()
    if len(kept) < 2:
        return label_table(settings, runs, seen, kept)
    names = [seen.factors.names[k] for k in kept]
    common = {"seed": settings.seed, "classes": classes_of(images.name, names)}
    exam = {**common, "names": names, "draws": row["draws"], "rotations": row["rotations"]}
    ends = group_scores.references(seen.factors.values(slice(None))[:, kept], **common)

    def scored(about: dict, codes: Codes, factors: Labels, nats: np.ndarray) -> dict:
        scores = group_scores.scores(codes, factors, nats, **exam)
        knows = ", ".join(map(label, group_scores.known(scores, names))) or "nothing"
        return {**about, "knows": knows} | scores | ends

    wanted = [
        ({**about, "form": form}, z, values[:, kept], kl)
        for about, code, values, nats in groups_drawn(runs, seen, row["draws"])
        for form, (z, kl) in forms(code, nats).items()
    ]
    return threaded(scored, wanted)


def label_table(settings: NVAESettings, runs: Mapping[str, Run], seen: ImageSet, kept: list[int]) -> list[dict]:
    """A row a model and latent group: what a linear classifier reads of the one factor in `kept`, from draws."""
    rows = []
    for about, code, factors, nats in groups_drawn(runs, seen, 1) if kept else ():
        row = {**about, "nats": float(nats.sum()), "label": seen.factors.names[kept[0]]}
        rows.append(row | read_out_row(code, factors[:, kept[0]], settings.seed))
    return rows


def groups_drawn(runs: Mapping[str, Run], seen: ImageSet, draws: int) -> Iterator[tuple[dict, np.ndarray, Any, Any]]:
    """Each group of each model: which it is, draws from its posterior, the factors of each, and nats of each latent."""
    for name, run in runs.items():
        nats = run.kl_by_latent(seen)
        codes, factors = run.codes_by_group(seen, draws=draws, pooled=False, batch=hierarchy.BATCH // draws)
        for group, (code, kl) in enumerate(zip(codes, nats, strict=True), 1):
            yield {"model": name, "group": group}, code, factors, kl


def shown_scores(rows: list[dict]) -> list[dict]:
    """The columns of `group_table` that the page shows."""
    if rows and "label" in rows[0]:
        return rows
    shown = []
    for row in rows:
        shown.append({name: row[name] for name in ("model", "group", "form", "nats", "live", "knows")})
        for name, title in hierarchy.REFERENCES.items():  # what has no live latent has no score of its own
            shown[-1][title] = row[name.format("")] if row["live"] or "{}" not in name else None
    return shown


def forms(codes: Codes, nats: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A group's code as it is, in its principal components and as the mean of its map, each with nats by column.

    Of the components all count as live if any latent does; a channel of the mean has the nats of its map.
    """
    live = metrics.live(nats.ravel())
    found = {"whole map": (codes, nats.ravel())}
    if live.sum() > 1:
        white = metrics.whitened(codes[:, live]).astype(np.float32)
        found["principal components"] = white, np.full(white.shape[1], nats.sum() / white.shape[1])
    if nats.ndim == 3 and nats[0].size > 1:
        pooled = codes.reshape(len(codes), len(nats), -1).mean(2)
        found["mean over space"] = pooled, nats.sum((1, 2))
    return found


def beside_earlier_work(claims: list[dict]) -> list[dict]:
    """A row for each earlier work on hierarchies, with our verdicts on what is nearest to it."""
    verdicts = {claim["id"]: f"{claim['id']} {known_with_reservations(claim)}" for claim in claims}
    rows = []
    for work, done, found, near in published.HIERARCHIES:
        here = "; ".join(verdicts[name] for name in near)
        rows.append({"work": work, "what was done": done, "what came out": found, "here": here})
    return rows


def beside_published(settings: NVAESettings) -> list[dict]:
    """Published likelihoods of the same images, each with its protocol; none where nobody has reported any."""
    return [number._asdict() for number in published.LIKELIHOODS.get(dataset(settings), ())]


def headline(settings: NVAESettings, bounds: pd.DataFrame, bits: int) -> list[dict]:
    """The stage's rows on the report's first page."""
    name, by_model = dataset(settings), bounds.set_index("model")["bits_per_dim"]
    theirs = (published.NVAE[name], published.NVAE_SOURCE) if name in published.NVAE else ()
    return [
        headline_row(f"NVAE, bits per dimension of {name}, {bits} bits", by_model["NVAE, β = 1"], *theirs),
        headline_row("flat VAE beside it, bits per dimension", by_model["flat VAE"]),
    ]
