"""Every size that a stage uses, in one table, and the settings that a notebook or a command line may change."""

import dataclasses
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vaestudy import parameters, project_root
from vaestudy.errors import InputError
from vaestudy.models.vae import LIKELIHOODS, NETWORKS
from vaestudy.objective import Objective
from vaestudy.trainer import Training

PROFILES = ("smoke", "laptop", "gpu", "paper")


def setting(default: Any, sentence: str) -> Any:
    """A setting that people may change: its default and the sentence that explains it."""
    return field(default=default, metadata={"help": sentence})


@dataclass(frozen=True)
class Settings:
    """What every stage has: the parameters of its notebook, one to one, and its profile's sizes."""

    profile: str = setting("auto", "smoke, laptop, gpu, paper, or auto: gpu with CUDA, otherwise laptop")
    dataset: str = setting("dsprites", "the images, a name that vaestudy.data.load knows")
    image_size: int = setting(0, "side of the images in pixels, 0 for the profile's")
    data_dir: str = setting("", "folder of data files and caches, empty for data in the project")
    beta: float = setting(1.0, "weight of the KL term, 0 or more")
    seed: int = setting(0, "of the weights, the order of the images and the noise")
    runs_dir: str = setting("runs", "folder of the trained runs")

    stage = ""

    def __post_init__(self):
        if self.profile == "auto":
            object.__setattr__(self, "profile", "gpu" if torch.cuda.is_available() else "laptop")
        if self.profile not in PROFILES:
            raise InputError(f"profile must be auto or one of {', '.join(PROFILES)}, not {self.profile!r}")
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise InputError(f"beta must be 0 or more, not {self.beta}")
        if self.image_size < 0:
            raise InputError(f"image_size must be 0 (the profile's) or a number of pixels, not {self.image_size}")

    @classmethod
    def parameters(cls) -> dict[str, type]:
        """The names that may be set, and their types, in the order of the parameters cell."""
        return {f.name: f.type for f in dataclasses.fields(cls)}

    @property
    def sizes(self) -> dict[str, Any]:
        """The profile's row of the table."""
        return SIZES[self.stage][self.profile]

    @property
    def side(self) -> int | None:
        """The image size asked for, the profile's for the stage's own data set, or None for the set's own."""
        own = type(self).__dataclass_fields__["dataset"].default
        return self.image_size or (self.sizes["image_size"] if self.dataset == own else None)

    @property
    def data(self) -> dict[str, Any]:
        """What `vaestudy.data.load` takes beside the name."""
        return {"image_size": self.side, "data_dir": self.data_dir or None}

    @property
    def runs(self) -> Path:
        return project_root() / self.runs_dir


def checked(name: str, value: Any, kind: type) -> Any:
    """The value as its declared type; whole numbers count as floats, nothing else is converted."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name} must be {kind.__name__}, not {value!r}")
    return value


@dataclass(frozen=True)
class VAESettings(Settings):
    """Stage 1: the variational autoencoder."""

    latent_dim: int = setting(10, "number of latents, 1 or more")
    likelihood: str = setting("bernoulli", "of the pixels: bernoulli or gaussian")
    network: str = setting("mlp", "linear, kingma, mlp, higgins, conv or burgess")

    stage = "vae"

    def __post_init__(self):
        super().__post_init__()
        if self.latent_dim < 1:
            raise InputError(f"latent_dim must be 1 or more, not {self.latent_dim}")
        for name, known in (("likelihood", LIKELIHOODS[:2]), ("network", NETWORKS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    @property
    def model(self) -> dict[str, Any]:
        """What `VAE` takes beside the shape of the images."""
        names = ("latent_dim", "network", "likelihood", "seed")
        return {"width": self.sizes["width"], **{name: getattr(self, name) for name in names}}

    @property
    def training(self) -> Training:
        return replace(self.sizes["training"], seed=self.seed, objective=Objective(beta=self.beta, warmup=0.1))


STAGES: dict[str, type[Settings]] = {cls.stage: cls for cls in (VAESettings,)}


def settings(stage: str, **given: Any) -> Settings:
    """The checked settings of a stage.

    Raises:
        InputError: an unknown stage or name, a value of the wrong type or out of range.
    """
    if stage not in STAGES:
        raise InputError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
    known = STAGES[stage].parameters()
    for name in given:
        if name not in known:
            raise InputError(f"{stage} has no parameter {name!r}: choose from {', '.join(known)}")
    return STAGES[stage](**{name: checked(name, value, known[name]) for name, value in given.items()})


def from_notebook(stage: str, namespace: dict[str, Any]) -> Settings:
    """The settings that a notebook's parameters cell, and whoever runs it, have put into its namespace."""
    parameters.check_assigned(STAGES[stage].parameters())
    return settings(stage, **{name: namespace[name] for name in STAGES[stage].parameters() if name in namespace})


SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "vae": {
        "smoke": {
            "image_size": 16,
            "width": 32,
            "training": Training(images=2_000, batch=100, learning_rate=1e-3, log_every=500),
            "plane_images": 2_000,
            "test_images": 200,
            "ladder": (1, 5, 25),
        },
        "laptop": {
            "image_size": 64,
            "width": 0,
            "training": Training(images=400_000, learning_rate=1e-3, decay_from=0.5, decay_to=0.02),
            "plane_images": 150_000,
            "test_images": 2_000,
            "ladder": (1, 5, 50, 500),
        },
        "gpu": {
            "image_size": 64,
            "width": 1200,
            "training": Training(images=30_000_000, batch=256, decay_from=0.5, decay_to=0.02, compile=True),
            "plane_images": 5_000_000,
            "test_images": 10_000,
            "ladder": (1, 5, 50, 500, 5000),
        },
        "paper": {
            "image_size": 64,
            "width": 1200,
            "training": Training(
                images=100_000_000, batch=100, learning_rate=0.01, optimizer="adagrad", precision="fp32"
            ),
            "plane_images": 10_000_000,
            "test_images": 10_000,
            "ladder": (1, 5, 50, 500, 5000),
        },
    },
}
