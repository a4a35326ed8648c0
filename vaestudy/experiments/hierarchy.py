"""Does β > 1 disentangle a hierarchy, and in which group: models of each β and schedule, scored group by group."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vaestudy import data
from vaestudy.data import ImageSet
from vaestudy.models import NVAE, NVAEConfig
from vaestudy.training import Job, folder

PRESETS = {"hierarchy": "hierarchy32", "one group": "hierarchy32_top"}
# What is charged while the KL terms warm up: every group alike, by NVAE's balancing, or the lower groups up to four
# times more, so that the top group is used first.
SCHEDULES: dict[str, dict[str, Any]] = {
    "none": {},
    "balance": {"balance": True},
    "top_first": {"group_kl_anneal": 4.0},
}


def settings(sizes: dict[str, Any]) -> list[dict[str, Any]]:
    """The network, schedule and β of every model of one seed; the one group alone has no schedule."""
    pressed = [
        {"network": "hierarchy", "schedule": schedule, "beta": float(beta)}
        for schedule in sizes["schedules"]
        for beta in sizes["betas"]
    ]
    flat = [{"network": "one group", "schedule": None, "beta": float(beta)} for beta in sizes["flat_betas"]]
    return pressed + flat


def images(sizes: dict[str, Any], data_dir: Path | str | None) -> tuple[ImageSet, ImageSet]:
    """dSprites to train on, and the held-out images that bounds and scores are taken on."""
    return data.train_and_test("dsprites", sizes["test_images"], image_size=sizes["image_size"], data_dir=data_dir)


def job(sizes: dict[str, Any], of: dict[str, Any], seed: int, train_set: ImageSet, root: Path | str) -> Job:
    """The training of one setting and seed."""
    model = NVAE(NVAEConfig.preset(PRESETS[of["network"]], shape=train_set.shape, seed=seed))
    pressure = {"beta": of["beta"], **SCHEDULES[of["schedule"] or "none"]}
    recipe = replace(sizes["training"], seed=seed, objective=replace(sizes["training"].objective, **pressure))
    return Job(model, train_set, recipe, folder(root, "hierarchy", model, train_set, recipe))
