"""What a stage can be told: the one place where a parameter has a type, bounds, a default and a sentence.

The command line, the parameters cell of a notebook, `--help` and the tests read it. What the profile, the data set and
these settings make of each other is decided, and refused where it cannot work, by `vaestudy.experiments`.
"""

import ast
import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaestudy.errors import InputError, check_choice

PROFILES = ("smoke", "laptop", "night", "gpu", "paper")
NETWORKS = ("linear", "kingma", "mlp", "higgins", "conv", "burgess")
YAML, IPYTHON = str | int | float | list | dict | None, {"In", "Out"}  # what parameters may be, and what are none
MOST_SEED = 2**32 - 1
MOST_BETA = MOST_LABELS = 1_000_000


def setting(
    default: Any, sentence: str, *, least: float | int = -math.inf, most: float | int = math.inf,
    choices: Sequence[str] = (),
) -> Any:  # fmt: skip
    """A parameter: its default, the sentence that explains it, and what it may be."""
    return field(default=default, metadata={"help": sentence, "least": least, "most": most, "choices": tuple(choices)})


@dataclass(frozen=True)
class Settings:
    """What every stage can be told."""

    profile: str = setting(
        "auto", "smoke, laptop, night, gpu or paper; auto is gpu with CUDA, else laptop", choices=("auto", *PROFILES)
    )
    dataset: str = setting("dsprites", "the images, a name that vaestudy.data.load knows")
    image_size: int = setting(
        0, "side of the images in pixels, 0 for the profile's or, failing that, the set's", least=0, most=1024
    )
    data_dir: str = setting("", "folder of data files and caches, empty for $VAESTUDY_DATA or the folder data")
    beta: float = setting(1.0, "weight of the KL term, 0 or more, 1 is the VAE", least=0, most=MOST_BETA)
    seed: int = setting(0, "of the weights, the order of the images and the noise", least=0, most=MOST_SEED)
    runs_dir: str = setting("runs", "folder of the trained runs, relative to the project")

    stage = ""

    def __post_init__(self):
        if self.profile == "auto":
            import torch

            object.__setattr__(self, "profile", "gpu" if torch.cuda.is_available() else "laptop")


@dataclass(frozen=True)
class VAESettings(Settings):
    """Stage 1: the variational autoencoder."""

    latent_dim: int = setting(10, "number of latents, 2 or more", least=2, most=1000)
    likelihood: str = setting("bernoulli", "bernoulli or gaussian", choices=("bernoulli", "gaussian"))
    network: str = setting("mlp", "linear, kingma, mlp, higgins, conv or burgess", choices=NETWORKS)

    stage = "vae"


@dataclass(frozen=True)
class BetaVAESettings(Settings):
    """Stage 2: the β-VAE, the disentanglement metric and the sweep over β."""

    beta: float = setting(
        0.0, "β of the β-VAE shown beside the VAE, joins the sweep, 0 for the best one of it", least=0, most=MOST_BETA
    )
    likelihood: str = setting("bernoulli", "bernoulli or gaussian", choices=("bernoulli", "gaussian"))
    network: str = setting("mlp", "linear, kingma, mlp, higgins, conv or burgess", choices=NETWORKS)
    seeds: int = setting(0, "models for each β and latent size, 2 or more, 0 for the profile's", least=0, most=1000)
    pairs: int = setting(5, "pairs L that the Higgins score averages, 1 or more", least=1, most=200)
    labels: int = setting(
        1000, "images whose labels are known when β is chosen from weak labels, 50 or more", least=50, most=MOST_LABELS
    )

    stage = "beta_vae"

    def __post_init__(self):
        super().__post_init__()
        if self.seeds == 1:
            raise InputError("seeds must be 2 or more, or 0 for the profile's: the page compares models of one β")


@dataclass(frozen=True)
class NVAESettings(Settings):
    """Stage 3: NVAE, and what β does to it."""

    dataset: str = setting("", "the images, empty for the rendered faces of the profile")
    beta: float = setting(8.0, "β of the NVAE shown beside the plain NVAE, 0 or more", least=0, most=MOST_BETA)
    preset: str = setting("", "configuration, say celeba64 or cifar10, empty for the one of the profile")
    bits: int = setting(0, "bits of each colour channel, 1 to 8, 0 for those of the configuration", least=0, most=8)
    temperature: float = setting(
        0.7, "factor on the deviations below a fixed top and beside nearest images", least=0, most=10
    )

    stage = "nvae"


STAGES: dict[str, type[Settings]] = {cls.stage: cls for cls in (VAESettings, BetaVAESettings, NVAESettings)}


def fields(stage: str) -> dict[str, dataclasses.Field]:
    """The parameters of a stage by name, in the order of its notebook's parameters cell.

    Raises:
        InputError: an unknown stage.
    """
    check_choice("stage", stage, STAGES)
    return {parameter.name: parameter for parameter in dataclasses.fields(STAGES[stage])}


def resolve(stage: str, **given: Any) -> Settings:
    """The checked settings of a stage, its profile resolved.

    Raises:
        InputError: an unknown stage or name, a value of the wrong type or out of range.
    """
    known = fields(stage)
    for name in given:
        if name not in known:
            raise InputError(unknown(name, known, stage))
    return STAGES[stage](**{name: _checked(known[name], value) for name, value in given.items()})


def from_notebook(stage: str, namespace: Mapping[str, Any]) -> Settings:
    """The settings that a notebook's parameters cell, and whoever runs it, have put into its namespace.

    papermill only warns about a name that it does not know; so values under any other name are refused here. A
    person in JupyterLab may have such values for other reasons, so there only a near miss is.
    """
    from vaestudy.training.progress import has_person

    known = fields(stage)
    plain = {name for name, value in namespace.items() if isinstance(value, YAML) and name[0] != "_"}
    for name in sorted(plain - set(known) - IPYTHON):
        if not has_person() or difflib.get_close_matches(name, known, 1, 0.8):
            raise InputError(unknown(name, known, "the notebook"))
    return resolve(stage, **{name: namespace[name] for name in known if name in namespace})


def from_words(stage: str, words: Mapping[str, str]) -> dict[str, Any]:
    """Words of a command line as values; what is declared as text stays text, and so does what is no value."""
    kinds = {name: parameter.type for name, parameter in fields(stage).items()}
    return {name: text if kinds.get(name) is str else _literal(text) for name, text in words.items()}


def unknown(name: str, known: Sequence[str] | Mapping, owner: str) -> str:
    """The line that refuses a parameter, with the one that was probably meant."""
    close = difflib.get_close_matches(name, list(known), 1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
    return f"{owner} has no parameter {name!r}: {hint}"


def stage_of(path: Path | str) -> str | None:
    """The stage that a notebook's metadata name as `{"vaestudy": {"stage": ...}}`, None for anybody else's."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))["metadata"]["vaestudy"]["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _checked(parameter: dataclasses.Field, value: Any) -> Any:
    """The value as its declared type and within its bounds; whole numbers count as floats, as do words like 1e-3."""
    name, kind, allowed = parameter.name, parameter.type, parameter.metadata
    if kind is float and isinstance(value, str):
        value = _literal(value)  # YAML reads 1e-3 as text
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        wanted = {float: "a number", int: "a whole number"}.get(kind, "text")
        raise InputError(f"{name} must be {wanted}, not {value!r}")
    if allowed["choices"]:
        check_choice(name, value, allowed["choices"])
    if kind is str and "\0" in value:
        raise InputError(f"{name} must have no NUL character, which no path has")
    if kind is not str and not allowed["least"] <= value <= allowed["most"]:
        raise InputError(f"{name} must be {allowed['least']} to {allowed['most']}, not {value}")
    return kind(value)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
