"""Every size that a stage uses: a base row for each stage, and what each profile changes in it."""

from dataclasses import replace
from typing import Any

from vaestudy.settings import PROFILES
from vaestudy.training import Objective, Training

_SETTLES = {"lr_decay_from": 0.5, "min_lr_ratio": 0.02}
_LAPTOP = {"optimizer": "adamw", "betas": (0.9, 0.99), "lr_warmup": 0.05, "lr_decay_from": 0.05, "min_lr_ratio": 0.01}
_LAPTOP |= {"ema": 0.995, "log_every": 1_600}
_KINGMA = {"optimizer": "adagrad", "learning_rate": 0.01}
# Vahdat & Kautz (2020), sec. 4 and appendix A.
_NVAE = {"learning_rate": 1e-2, "optimizer": "adamax", "eps": 1e-3, "weight_decay": 3e-4, "min_lr_ratio": 0.01}
_NVAE |= {"grad_skip_factor": 10.0, "flip": True, "compile": True}
_NVAE |= {"objective": Objective(warmup=0.3, min_kl_weight=1e-4, balance=True, spectral=0.1)}
# Parts of the evidence (see `vaestudy.experiments.evidence`): which a stage runs, what each changes in the stage's row,
# how many seeds are one piece (0: all of them on the page), and whether the sizes are too small to learn from.
_EVIDENCE: dict[str, Any] = {"parts": {}, "pieces": 0, "exploratory": False}
_SWEEP = Training(images=720_000, learning_rate=2e-3, objective=Objective(warmup=0.3, gamma=30.0), **_SETTLES)
_FLAT = Objective(warmup=0.1)

# fmt: off
# The evidence of stage 3, as the night trains it: dSprites, five β under three schedules and, beside them, the same
# network with its top group alone; the same on rendered faces, and with NVAE's own cells; and its devices on faces.
_HIERARCHY = {
    "seeds": 10, "side": 32, "network": {}, "betas": (0.15, 1.0, 4.0, 8.0, 16.0),
    "schedules": ("none", "balance", "top_first"), "flat_betas": (1.0, 4.0, 8.0, 16.0, 32.0),
    "training": Training(images=100_000, batch=32, learning_rate=3e-3, objective=Objective(warmup=0.3), **_LAPTOP),
    "test_images": 15_000, "scored_images": 5_000, "draws": 10, "rotations": 20,
}
_OWN_CELLS = {"decoder_cell": "depthwise", "squeeze_excitation": True, "weight_norm": True}
_NVAES: dict[str, dict[str, Any]] = {
    "hierarchy": _HIERARCHY,
    "hierarchy_faces": _HIERARCHY | {
        "data": "faces_mild", "betas": (1.0, 16.0), "flat_betas": (1.0, 16.0), "schedules": ("none", "top_first"),
        "seeds": 4, "test_images": 5_000,
    },
    "hierarchy_cells": _HIERARCHY | {
        "network": _OWN_CELLS, "betas": (1.0, 16.0), "flat_betas": (), "schedules": ("top_first",), "seeds": 4,
    },
    "devices": {
        "seeds": 8, "data": "faces_mild", "side": 32, "architecture": "laptop32_cells", "test_images": 2_000,
        "training": Training(
            images=48_000, batch=32, learning_rate=4e-3, grad_skip_factor=10.0,
            objective=Objective(warmup=0.3, group_kl_anneal=4.0, spectral=0.01), **_LAPTOP,
        ),
    },
}
_TOP_FIRST = {"grad_skip_factor": 10.0, "objective": Objective(warmup=0.3, group_kl_anneal=4.0), **_LAPTOP}
_SMOKE = {
    "seeds": 1, "side": 16, "network": {"unshuffle": 2, "channels": 8},
    "training": Training(images=320, batch=16, learning_rate=3e-3, objective=Objective(warmup=0.3)),
    "test_images": 300, "scored_images": 300, "draws": 2, "rotations": 1,
}

BASE: dict[str, dict[str, Any]] = {
    "vae": {
        **_EVIDENCE, "image_size": 64, "width": 1200, "test_images": 10_000, "ladder": (1, 5, 50, 500, 5000),
        "parts": {"gradients": {"seeds": 10, "gradient_draws": 500, "training": Training(images=100_000)}},
    },
    "beta_vae": {
        **_EVIDENCE, "image_size": 64, "width": 0, "grid_images": 100_000,
        "curve_pairs": (1, 2, 5, 10, 20, 50, 100, 200), "classifier": "logistic", "label_subsets": 20, "rotations": 0,
        "parts": {
            "sweep32": {}, "spectra": {},
            "objectives": {
                "betas": (1.0, 4.0, 16.0), "capacities": (6.0, 12.0, 25.0), "tc": (2.0, 4.0, 8.0), "seeds": 3,
            },
            "combinations": {"betas": (1.0, 4.0, 16.0), "latent_dims": (10,), "seeds": 3},
        },
    },
    "nvae": {
        **_EVIDENCE, "image_size": 64, "preset": "celeba64", "checkpoint": "norm_act",
        "betas": (2.0, 8.0), "flat": {"width": 64, "latent_dim": 128}, "rotations": 2, "draws": 5,
        "temperatures": (0.5, 0.6, 0.7, 1.0),
    },
}

OVERRIDES: dict[str, dict[str, dict[str, Any]]] = {
    "vae": {
        "smoke": {
            "image_size": 16, "width": 32, "plane_images": 2_000, "test_images": 200, "ladder": (1, 5, 25),
            "training": Training(images=2_000, batch=100, log_every=500), "exploratory": True,
            "parts": {"gradients": {"seeds": 2, "gradient_draws": 20, "training": Training(images=200, batch=100)}},
        },
        "laptop": {
            "image_size": 32, "width": 0, "plane_images": 200_000, "test_images": 2_000, "ladder": (1, 5, 50, 500),
            "training": Training(images=650_000, **_SETTLES),
            "parts": {"gradients": {"seeds": 10, "gradient_draws": 200, "training": Training(images=10_000)}},
        },
        "gpu": {
            "plane_images": 5_000_000,
            "training": Training(images=30_000_000, batch=256, compile=True, **_SETTLES),
        },
        "paper": {
            "plane_images": 10_000_000,
            "training": Training(images=100_000_000, batch=100, precision="fp32", **_KINGMA),
        },
    },
    "beta_vae": {
        "smoke": {
            "image_size": 16, "width": 16, "seeds": 2, "latent_dims": (4, 3), "betas": (0.3, 1.0, 30.0),
            "training": Training(images=1_500, batch=50, log_every=500), "exploratory": True,
            "grid_images": 6_000, "curve_pairs": (1, 5, 20), "label_subsets": 2,
            "parts": {
                "sweep32": {}, "curve32": {"betas": (5.0,), "latent_dims": (4,), "seeds": 2}, "spectra": {},
                "objectives": {"capacities": (5.0,), "tc": (4.0,)},
                "combinations": {"betas": (30.0,), "latent_dims": (4,)},
            },
        },
        "laptop": {
            "image_size": 32, "width": 64,
            # The scores of β > 1 have two humps, codes along the axes and across them, at any length of training: after
            # 720,000 images half of the models lie along them, after 1,600,000 six of ten (β = 8, seeds from 1000 on).
            # Many models of few images tell the humps' means apart in the least time.
            "seeds": 48, "latent_dims": (10,), "betas": (1.0, 8.0), "grid_images": 30_000,
            "training": replace(_SWEEP, log_every=60_000, compile=True),
            "parts": {"sweep32": {}, "curve32": {"betas": (4.0, 32.0), "seeds": 2}, "spectra": {}},
        },
        "gpu": {
            "seeds": 5, "latent_dims": (10, 32), "betas": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
            "training": Training(images=4_000_000, batch=256, log_every=250_000, **_SETTLES),
        },
        "paper": {
            "width": 1200, "seeds": 10, "latent_dims": (10, 100, 200), "classifier": "adagrad",
            "betas": (0.1, 0.5, 1.0, 4.0, 10.0, 40.0, 100.0, 400.0), "grid_images": 1_000_000,
            "training": Training(images=25_600_000, batch=256, log_every=1_000_000, **_KINGMA),
        },
    },
    "nvae": {
        "smoke": {
            "dataset": "faces_mild", "image_size": 16, "preset": "smoke", "checkpoint": "none", "betas": (),
            "training": Training(images=160, batch=8, learning_rate=4e-3, log_every=80, ema=0.9),
            "flat": {"width": 8, "latent_dim": 8},
            "flat_training": Training(images=160, batch=8, log_every=80),
            "test_images": 100, "weighted_images": 20, "weights": 3, "scored_images": 400, "rotations": 1, "draws": 2,
            "temperatures": (0.7, 1.0), "passes": 2, "exploratory": True,
            "parts": {
                "hierarchy": _NVAES["hierarchy"] | _SMOKE | {
                    "betas": (1.0, 16.0), "schedules": ("none", "top_first"), "flat_betas": (1.0,),
                },
                "hierarchy_faces": _NVAES["hierarchy_faces"] | _SMOKE | {"schedules": ("top_first",), "flat_betas": ()},
                "hierarchy_cells": _NVAES["hierarchy_cells"] | _SMOKE | {"network": _SMOKE["network"] | _OWN_CELLS},
                "devices": _NVAES["devices"] | {
                    "seeds": 1, "side": 16, "architecture": "smoke", "test_images": 100,
                    "training": Training(images=32, batch=8, objective=Objective(spectral=0.01)),
                },
            },
        },
        "laptop": {
            "dataset": "faces_mild", "image_size": 32, "preset": "laptop32_cells", "checkpoint": "none", "betas": (),
            # So few steps that the average of the weights has to forget the first ones sooner than in longer runs.
            "training": Training(images=24_000, batch=32, learning_rate=4e-3, **_TOP_FIRST | {"ema": 0.985}),
            "flat": {"width": 16, "latent_dim": 64},
            "flat_training": Training(
                images=24_000, batch=32, learning_rate=2e-3, objective=_FLAT, **_LAPTOP | {"ema": 0.985},
            ),
            "test_images": 500, "weighted_images": 100, "weights": 20, "scored_images": 2_000, "rotations": 1,
            "temperatures": (0.5, 0.7, 1.0), "passes": 10,
        },
        "gpu": {
            "dataset": "faces", "preset": "gpu64", "betas": (8.0,),
            "training": Training(images=60_000, batch=64, lr_warmup=0.05, lr_decay_from=0.05, ema=0.999, **_NVAE),
            "flat_training": Training(images=1_000_000, batch=256, objective=_FLAT, log_every=50_000),
            "test_images": 4_000, "weighted_images": 500, "weights": 50, "scored_images": 20_000, "passes": 100,
        },
        "paper": {
            "dataset": "celeba",
            "training": Training(
                images=90 * 162_770, batch=128, micro_batches=8, lr_warmup=5 / 90, lr_decay_from=6 / 90,
                log_every=100_000, **_NVAE,
            ),
            "flat_training": Training(images=20_000_000, batch=256, objective=_FLAT, log_every=500_000),
            "test_images": 19_867, "weighted_images": 1_000, "weights": 1_000, "scored_images": 50_000, "passes": 500,
        },
    },
}

# fmt: on
# What the night runs in pieces of two seeds.
_SHORT = {"training": _SWEEP}
_SMALL = {"image_size": 32, "width": 128, "training": _SWEEP}
_FACES = {"dataset": "faces_mild", "image_size": 32, "betas": (1.0, 4.0, 8.0, 16.0, 32.0, 64.0)}
_LONG = {"betas": (1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0), "seeds": 10}
_LONG |= {"training": replace(_SWEEP, images=2_160_000, log_every=60_000)}
_NIGHT_SWEEP = {**_LONG, "rotations": 20, "label_subsets": 200, "seeds": 20}
_FEW = {"train_size": 2_000, "latent_dims": (10, 50), "training": Training(images=2_000_000, **_SETTLES)}
_SIZES = {"latent_dims": (4, 10, 32), "beta_norms": tuple(10 * beta / 1024 for beta in (1, 4, 8, 16, 32, 64))}
_OTHERS = {"capacities": (1.0, 2.0, 4.0, 6.0, 8.0), "tc": (2.0, 4.0, 8.0, 16.0, 32.0)}
NIGHT: dict[str, dict[str, dict[str, Any]]] = {
    "vae": {
        "gradients": {**_SMALL, "gradient_draws": 500, "seeds": 10, "training": Training(images=100_000)},
        "samples": {**_SMALL, "batches": (100, 10), "seeds": 20, "training": Training(images=400_000, **_SETTLES)},
        "overfitting": {**_SMALL, **_FEW, "seeds": 10},
        "latents": {**_SMALL, "latent_dims": (20, 50), "seeds": 20, "training": Training(images=1_500_000, **_SETTLES)},
        "codes": {**_SMALL, "betas": (1.0, 16.0), "grid_images": 50_000, "rotations": 20, "seeds": 10},
    },
    "beta_vae": {
        "sweep32": _NIGHT_SWEEP,
        "spectra": _LONG,
        "dropping": {**_LONG, "betas": (0.5, *_LONG["betas"], 64.0, 128.0)},
        "sizes": {**_SHORT, **_SIZES, "seeds": 10},
        "faces": {**_SHORT, **_FACES, "seeds": 10},
        "objectives": {**_SHORT, **_OTHERS, "betas": (1.0, 4.0, 8.0, 16.0, 32.0), "seeds": 10},
        "combinations": {**_SHORT, "betas": (1.0, 16.0), "seeds": 10},
        "paper64": {**_SHORT, "image_size": 64, "width": 512, "betas": (1.0, 4.0, 16.0, 32.0, 64.0), "seeds": 20},
        "ica64": {**_SHORT, "image_size": 64, "seeds": 20},
    },
    "nvae": _NVAES,
}
for _stage, _parts in NIGHT.items():
    OVERRIDES[_stage]["night"] = {**OVERRIDES[_stage]["laptop"], "parts": _parts, "pieces": 2}
# The models that the pages show.
OVERRIDES["vae"]["night"] |= {"training": Training(images=1_000_000, **_SETTLES), "plane_images": 300_000}
OVERRIDES["beta_vae"]["night"] |= {**_LONG, "width": 128, "seeds": 2, "grid_images": 50_000}
_SHORTER = OVERRIDES["nvae"]["laptop"]
OVERRIDES["nvae"]["night"] |= {
    "training": replace(_SHORTER["training"], images=400_000, ema=0.998),
    "flat_training": replace(_SHORTER["flat_training"], images=240_000, ema=0.995),
    "test_images": 2_000, "weighted_images": 200, "weights": 50, "scored_images": 5_000, "rotations": 2, "passes": 20,
}  # fmt: skip


def sizes(stage: str, profile: str) -> dict[str, Any]:
    """A profile's row of sizes for a stage."""
    return {**BASE[stage], **OVERRIDES[stage][profile]}


def parts(stage: str, profile: str) -> dict[str, dict[str, Any]]:
    """The parts of the evidence that a profile runs for a stage: each the stage's row with what the part changes."""
    row = sizes(stage, profile)
    own = {name: value for name, value in row.items() if name not in ("parts", "pieces", "exploratory")}
    return {name: {**own, **changes} for name, changes in row["parts"].items()}


__all__ = ["BASE", "OVERRIDES", "PROFILES", "parts", "sizes"]
