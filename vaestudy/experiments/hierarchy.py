"""Does β > 1 disentangle a hierarchy, and in which group: models of each β and schedule, scored group by group."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from vaestudy import words
from vaestudy.data import ImageSet
from vaestudy.experiments import group_scores
from vaestudy.experiments.common import pressed, trained
from vaestudy.experiments.evidence import Context, apart, either
from vaestudy.experiments.scores import classes_of
from vaestudy.models import NVAE, NVAEConfig
from vaestudy.training import Job, Run, fit

SCHEDULE_TITLES = {"none": "no schedule", "balance": "NVAE's balancing", "top_first": "top first"}
SCHEDULE_WORDS = {
    "none": "with every group charged alike",
    "balance": "under NVAE's balancing",
    "top_first": "with the lower groups charged more",
}
SHOWN = (1.0, 16.0)  # the β whose groups the page shows
WORTH = 0.1  # nats of a factor from which it is named
# Columns of a record after the group's name, and what the page calls them.
REFERENCES = {
    "{}higgins_5_draws": "Higgins, L = 5",
    "{}higgins_5_rotated": "rotated",
    "higgins_chance": "chance",
    "{}higgins_5_known": "known factors",
    "higgins_5_ceiling": "ceiling",
    "{}mig_draws": "MIG",
    "{}mig_rotated": "MIG rotated",
    "{}mig_sup_draws": "MIG-sup",
}
BATCH = 1_000  # images encoded at a time, their draws counted: larger ones leave a core's cache
PRESETS = {"hierarchy": "hierarchy32", "one group": "hierarchy32_top"}
# The experiment once more, in fewer settings and seeds: the part and what is different.
VARIANTS = {"hierarchy_faces": "on rendered faces", "hierarchy_cells": "on dSprites with NVAE's own cells"}
# What is charged while the KL terms warm up: every group alike, by NVAE's balancing, or the last group four times its
# full price at first and the others nothing, so that the top group is used first.
SCHEDULES = {"none": {}, "balance": {"balance": True}, "top_first": {"group_kl_anneal": 4.0}}


def settings(sizes: dict[str, Any]) -> list[dict[str, Any]]:
    """The network, schedule and β of every model of one seed; the one group alone has no schedule."""
    found = [("hierarchy", *pressure) for pressure in itertools.product(sizes["schedules"], sizes["betas"])]
    found += [("one group", None, beta) for beta in sizes["flat_betas"]]
    return [{"network": name, "schedule": schedule, "beta": float(beta)} for name, schedule, beta in found]


def settled(run: Run) -> dict[str, Any]:
    """The settings of a model as records hold them."""
    return trained(run) | {"width": run.model.config.channels, "training_seconds": run.provenance["seconds"]}


def job(context: Context, setting: dict[str, Any], seed: int, images: ImageSet) -> Job:
    """The training of one setting and seed."""
    changes = {"shape": images.shape, "seed": seed, **context.sizes["network"]}
    model = NVAE(replace(NVAEConfig.preset(PRESETS[setting["network"]]), **changes))
    charged = SCHEDULES[setting["schedule"] or "none"]
    recipe = pressed(context.sizes["training"], seed, beta=setting["beta"], **charged)
    return Job.below(context.runs_root, "hierarchy", model, images, recipe)


def trained_and_scored(context: Context, setting: dict[str, Any], seed: int) -> dict:
    """The row of one model; what was scored once is found in the record of its run."""
    train_set, test_set = context.train_and_test()
    run = fit(*job(context, setting, seed, train_set))
    exam = {name: context.sizes[name] for name in ("scored_images", "draws", "rotations")}
    known, about = run.record.get("groups", {}), {**exam, "test_images": len(test_set)}
    if known.get("exam") != about:
        row = {"elbo": run.bound(test_set)["elbo_nats"], **scores(run, test_set, **exam)}
        known = {"exam": about, "scores": row}
        run.update_record(groups=known)
    return {**settled(run), **setting, **known["scores"]}


for _name in ("hierarchy", *VARIANTS):
    apart(_name, trained_and_scored, settings, job)


def scores(run: Run, seen: ImageSet, *, scored_images: int, draws: int, rotations: int) -> dict[str, float]:
    """The nats of a model, and the scores and knowledge of each of its groups, from posterior draws of some images.

    Names are those of `group_scores`, after the group's (top, second, third, and all of them together) where the model
    has several groups. `{group}_alone_{factor}`, `_given_above_` and `_together_` are nats.
    """
    seen = seen.select(slice(0, scored_images))
    names = seen.factors.names
    same = {"seed": 0, "classes": classes_of(seen.name, names)}
    nats = [group.ravel() for group in run.kl_by_latent(seen)]
    codes, factors = run.codes_by_group(seen, draws=draws, pooled=False, batch=BATCH // draws)
    labels = [f"{name}_" for name in words.GROUPS] if len(codes) > 1 else [""]
    row = {"nats": float(sum(group.sum() for group in nats))}
    row |= group_scores.references(factors, **same)
    exam = {**same, "names": names, "draws": draws, "rotations": rotations}
    parts = {label: (code, kl) for label, code, kl in zip(labels, codes, nats, strict=True)}
    if len(codes) > 1:
        parts["all_"] = np.concatenate(codes, axis=1), np.concatenate(nats)
    for label, (code, kl) in parts.items():
        row |= {f"{label}{name}": value for name, value in group_scores.scores(code, factors, kl, **exam).items()}
    known = group_scores.knowledge([code[::draws] for code in codes], factors[::draws], seed=same["seed"])
    for what, table in known._asdict().items():
        for label, values in zip(labels, table, strict=True):
            row |= {f"{label}{what}_{name}": float(value) for name, value in zip(names, values, strict=True)}
    # One group is the whole code and the top one in one.
    return row if len(codes) > 1 else row | {"top_nats": row["nats"]}


def groups_of(found: pd.DataFrame) -> list[dict]:
    """A row a schedule, β and group: means over seeds of nats, knowledge and scores beside their references.

    `found` are records of the part `hierarchy`. A group "knows" what a linear classifier reads from its draws by
    themselves, "adds" what it reads beyond the groups above: factors worth a tenth of a nat or more, with their nats.
    Scores are means over the models whose group has live latents.
    """
    if not len(found):
        return []
    rows, shown = [], found[found["beta"].isin(SHOWN)].fillna({"schedule": "none"})
    for (network, schedule, beta), models in shown.groupby(["network", "schedule", "beta"], sort=False):
        means, one = models.mean(numeric_only=True), network == "one group"
        setting = network if one else SCHEDULE_TITLES[schedule]
        for label in [""] if one else ["top_", "second_", "third_", "all_"]:
            row = {"schedule": setting, "β": beta, "group": "the only one" if one else label[:-1]}
            row |= {"nats": means[f"{label}nats"], "live latents": means[f"{label}live"]}
            # All groups together know what the last one knows with those above it.
            knows = "third_together_" if label == "all_" else f"{label}alone_"
            row |= {"knows, nats": _in_nats(means, knows), "adds, nats": _in_nats(means, f"{label}given_above_")}
            filled = models[models[f"{label}live"] > 0]  # the others have nothing to score
            for name, title in REFERENCES.items():
                row[title] = (filled if "{}" in name else models)[name.format(label)].mean()
            rows.append(row | {"seeds scored": len(filled), "seeds": models["seed"].nunique()})
    return rows


def variants(own: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The records of each of `VARIANTS` that there are any of, by what is different: a page's own or published ones."""
    found = {what: either(own, name) for name, what in VARIANTS.items()}
    return {what: records for what, records in found.items() if len(records)}


def _in_nats(means: pd.Series, before: str) -> str:
    """The factors in the columns that begin so, with their nats: those of a tenth or more."""
    known = {name.removeprefix(before): value for name, value in means.items() if name.startswith(before)}
    worth = sorted(((value, name) for name, value in known.items() if value >= WORTH), reverse=True)
    return ", ".join(f"{words.label(name)} {value:.1f}" for value, name in worth) or ("nothing" if known else "–")
