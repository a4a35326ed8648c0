"""The stages: what a notebook or a command line may set, checked, and what follows from it and its profile."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vaestudy import parameters, project_root
from vaestudy.data import Factors
from vaestudy.errors import InputError
from vaestudy.models.nvae_config import PRESETS, NVAEConfig
from vaestudy.models.vae import LIKELIHOODS, NETWORKS
from vaestudy.profiles import ABLATIONS, PROFILES, SIZES
from vaestudy.training.config import Training
from vaestudy.training.objective import Objective
from vaestudy.training.sweep import Grid


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
        check_network(self)

    @property
    def model(self) -> dict[str, Any]:
        """What `VAE` takes beside the shape of the images."""
        names = ("latent_dim", "network", "likelihood", "seed")
        return {"width": self.sizes["width"], **{name: getattr(self, name) for name in names}}

    @property
    def training(self) -> Training:
        return replace(self.sizes["training"], seed=self.seed, objective=Objective(beta=self.beta, warmup=0.1))


@dataclass(frozen=True)
class BetaVAESettings(Settings):
    """Stage 2: the β-VAE, the disentanglement metric and the sweep over β."""

    beta: float = setting(0.0, "β of the β-VAE shown beside the VAE, 0 for the best one of the sweep")
    likelihood: str = setting("bernoulli", "of the pixels: bernoulli or gaussian")
    network: str = setting("mlp", "linear, kingma, mlp, higgins, conv or burgess")
    seeds: int = setting(0, "models for each β and latent size, 0 for the number of the profile")
    pairs: int = setting(5, "pairs L that the Higgins score averages, 1 or more")
    labels: int = setting(1000, "images whose labels are known when β is chosen from weak labels")

    stage = "beta_vae"

    def __post_init__(self):
        super().__post_init__()
        check_network(self)
        for name, least in (("seeds", 0), ("pairs", 1), ("labels", 50)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be {least} or more, not {getattr(self, name)}")

    @property
    def members(self) -> tuple[int, ...]:
        """The seeds of the models."""
        return tuple(range(self.seed, self.seed + (self.seeds or self.sizes["seeds"])))

    def classes(self, names: Sequence[str]) -> list[int]:
        """Columns of the factors that the Higgins score names: the paper leaves out the shape of dSprites."""
        return [k for k, name in enumerate(names) if (self.dataset, name) != ("dsprites", "shape")]

    def region(self, factors: Factors) -> dict[str, list[int]]:
        """What is held out to test new combinations: a last value of the first factor with half of the last one's."""
        first, last = factors.sizes[0], factors.sizes[-1]
        return {factors.names[0]: [first - 1], factors.names[-1]: list(range(last // 2, last))}

    @property
    def grid(self) -> Grid:
        """The sweep of β-VAEs: β = 1 and the β asked for are always in it."""
        betas = {*self.sizes["betas"], 1.0, *([self.beta] if self.beta else [])}
        return Grid(betas=tuple(sorted(betas)), latent_dims=self.sizes["latent_dims"], seeds=self.members)

    @property
    def other_grid(self) -> Grid:
        """Two other ways to press: annealed capacity and β-TCVAE, at the first latent size."""
        return Grid(
            betas=self.sizes["correlation_betas"],
            capacities=self.sizes["capacities"],
            latent_dims=self.sizes["latent_dims"][:1],
            seeds=self.members,
            objectives=("capacity", "total_correlation"),
        )

    @property
    def model(self) -> dict[str, Any]:
        """What `VAE` takes beside the shape of the images, the latent size and the seed."""
        return {"width": self.sizes["width"], "network": self.network, "likelihood": self.likelihood}

    @property
    def training(self) -> Training:
        return self.sizes["training"]


def check_network(settings: VAESettings | BetaVAESettings) -> None:
    """Raise InputError for a likelihood or a network that flat latents do not have."""
    for name, known in (("likelihood", LIKELIHOODS[:2]), ("network", NETWORKS)):
        if getattr(settings, name) not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, not {getattr(settings, name)!r}")


@dataclass(frozen=True)
class NVAESettings(Settings):
    """Stage 3: NVAE, and what β does to it."""

    dataset: str = setting("", "the images, empty for the rendered faces of the profile")
    beta: float = setting(4.0, "β of the NVAE shown beside the plain NVAE, 0 or more")
    preset: str = setting("", "configuration, say celeba64 or cifar10, empty for the one of the profile")
    bits: int = setting(0, "bits of each colour channel, 1 to 8, 0 for those of the configuration")
    temperature: float = setting(0.7, "factor on the standard deviations in the samples shown")

    stage = "nvae"

    def __post_init__(self):
        super().__post_init__()
        if not self.dataset:
            object.__setattr__(self, "dataset", self.sizes["dataset"])
        if self.preset and self.preset not in PRESETS:
            raise InputError(f"preset must be one of {', '.join(PRESETS)}, not {self.preset!r}")
        if not 0 <= self.bits <= 8 or not self.temperature >= 0:
            raise InputError(f"bits must be 0 to 8 and temperature 0 or more, not {self.bits} and {self.temperature}")
        if self.side:
            # Sides that the scales do not divide are refused before any image is rendered or read.
            channels = NVAEConfig.preset(self.preset or self.sizes["preset"]).shape[0]
            self.config((channels, self.side, self.side))

    @property
    def side(self) -> int | None:
        """The image size asked for, the profile's for images of any size, or None for the set's own."""
        fixed = self.dataset in ("dsprites", "mnist", "fashion_mnist", "cifar10")
        return self.image_size or (None if fixed else self.sizes["image_size"])

    def config(self, shape: tuple[int, int, int]) -> NVAEConfig:
        """The network for images of this shape."""
        bits = {"bits": self.bits} if self.bits else {}
        fields = {"shape": shape, "seed": self.seed, "checkpoint": self.sizes["checkpoint"], **bits}
        return NVAEConfig.preset(self.preset or self.sizes["preset"], **fields)

    def small_config(self, shape: tuple[int, int, int], change: str = "") -> NVAEConfig:
        """The network of the ablations, with the fields of one of ABLATIONS changed."""
        changes = ABLATIONS[change][1] if change else {}
        return NVAEConfig.preset("smoke", shape=shape, seed=self.seed, bits=self.config(shape).bits, **changes)

    @property
    def betas(self) -> tuple[float, ...]:
        """1, the β asked for, and what the profile adds."""
        return tuple(sorted({1.0, self.beta, *self.sizes["betas"]}))

    def training(self, beta: float) -> Training:
        """The training of the NVAE at one β."""
        recipe = self.sizes["training"]
        return replace(recipe, seed=self.seed, objective=replace(recipe.objective, beta=beta))

    def small_training(self, change: str = "") -> Training:
        """The training of an ablation."""
        recipe = self.sizes["ablation"]
        changes = ABLATIONS[change][2] if change else {}
        return replace(recipe, seed=self.seed, objective=replace(recipe.objective, **changes))

    def flat(self, shape: tuple[int, int, int]) -> dict[str, Any]:
        """What `VAE` takes for the flat model beside the NVAE: the same likelihood."""
        config = self.config(shape)
        same = {"likelihood": config.likelihood, "mixtures": config.mixtures, "bits": config.bits}
        return {"network": "conv", "seed": self.seed, **same, **self.sizes["flat"]}


STAGES: dict[str, type[Settings]] = {cls.stage: cls for cls in (VAESettings, BetaVAESettings, NVAESettings)}


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
