"""The sizes and switches of an NVAE (Vahdat & Kautz 2020), and the configurations that the paper published."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vaestudy.errors import InputError, check_bounds, check_choice, check_choices
from vaestudy.models.likelihoods import LIKELIHOODS, Likelihood, make_likelihood

CHOICES = {
    "decoder_cell": ("depthwise", "regular"),
    "norm_activation": ("bn_swish", "bn_elu", "wn_elu"),
    "likelihood": LIKELIHOODS,
    "checkpoint": ("none", "norm_act", "cell"),
}


@dataclass(frozen=True)
class NVAEConfig:
    """What an NVAE is made of. The defaults are the paper's choices, at a small size.

    Sequences over scales or groups start at the top: the smallest maps, sampled first.

    Attributes:
        shape: (channels, height, width) of the images.
        channels: width C of the stem; each halving of the maps doubles it.
        channel_cap: no map is wider than this; 0 for no cap.
        blocks: halvings before the encoder's tower, and doublings after the decoder's.
        block_cells: cells in each of these blocks, the one that resamples included.
        groups: latent groups of each scale.
        latents: channels of z in the groups of each scale; a single number holds for all.
        encoder_cells, decoder_cells: cells of each group.
        decoder_cell: "depthwise" (5x5) or "regular" (3x3), as all of the encoder are.
        norm_activation: "bn_swish", "bn_elu" or "wn_elu" (no batch norm).
        squeeze_excitation, weight_norm: whether they are used.
        flows: pairs of volume-preserving flows in the posterior of each group.
        residual: whether a posterior is given relative to its prior.
        top_prior_std: of the top group's prior; the public code has 1.01 where the paper has N(0, 1).
        unshuffle: side of the pixel blocks that become channels before the stem, and pixels again after the head.
        border: rows and columns of zeros around an image, which the likelihood does not see (MNIST: 2).
        likelihood: "mixture" (discretised logistics), "bernoulli" or "gaussian".
        mixtures, bits, official_edges: of the mixture; see DiscretizedLogisticMixture.
        checkpoint: what the backward pass makes again to save memory: "none", "norm_act" (normalised and activated
            maps), or "cell" (all of a cell; implies the former).
        seed: of the initial weights.
    """

    shape: Sequence[int] = (3, 32, 32)
    channels: int = 32
    channel_cap: int = 0
    blocks: int = 1
    block_cells: int = 2
    groups: Sequence[int] = (2, 4)
    latents: int | Sequence[int] = 20
    encoder_cells: int = 2
    decoder_cells: int = 2
    decoder_cell: str = "depthwise"
    norm_activation: str = "bn_swish"
    squeeze_excitation: bool = True
    weight_norm: bool = True
    flows: int = 0
    residual: bool = True
    top_prior_std: float = 1.0
    unshuffle: int = 1
    border: int = 0
    likelihood: str = "mixture"
    mixtures: int = 10
    bits: int = 8
    official_edges: bool = False
    checkpoint: str = "none"
    seed: int = 0

    def __post_init__(self):
        for name in ("shape", "groups", "latents"):
            if not isinstance(getattr(self, name), int):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_choices(self, **CHOICES)
        check_bounds(self, channels="[4, inf)", block_cells="[1, inf)")
        latents = self.latents_of_scale
        if not len(latents) == len(self.groups) > 0 or min(*self.groups, *latents) < 1:
            raise InputError(f"groups {self.groups} and latents {latents} need one positive number for each scale")
        if self.norm_activation == "wn_elu" and not self.weight_norm:
            raise InputError("wn_elu has no batch norm: it needs weight_norm")
        divisor = self.unshuffle * 2 ** self.halvings_of_group[0]
        for side in self.shape[1:]:
            if (side + 2 * self.border) % divisor:
                raise InputError(
                    f"images of side {side} (+ {2 * self.border} of border) cannot be halved as often as asked: "
                    f"choose a multiple of {divisor}, or fewer scales (groups) or blocks"
                )
        self.make_likelihood().parameters_per_pixel(self.shape[0])

    @classmethod
    def preset(cls, name: str, *, shape: Sequence[int] | None = None, **changes: Any) -> "NVAEConfig":
        """A published configuration (NVAE, Table 6) or one of the study's own, with `changes` to its fields.

        `laptop32` is for two CPU cores, `laptop32_cells` the same with NVAE's own cells (depthwise decoder,
        squeeze-and-excitation, weight norm), `gpu64` for one large GPU, `smoke` for tests. `hierarchy32` has groups of
        1x1, 2x2 and 4x4 latents for dSprites, and `hierarchy32_top` is that network with the 1x1 group alone.

        Raises:
            InputError: an unknown name, images of another number of channels, or sides that the scales do not divide.
        """
        check_choice("preset", name, PRESETS)
        config = cls(**PRESETS[name])
        if shape is not None and shape[0] != config.shape[0]:
            raise InputError(
                f"preset {name} is for images of {config.shape[0]} channels, not {shape[0]}: choose another preset"
            )
        return replace(config, shape=shape or config.shape, **changes)

    def make_likelihood(self) -> Likelihood:
        return make_likelihood(self.likelihood, self.mixtures, self.bits, self.official_edges)

    def width(self, halvings: int) -> int:
        """Channels of the maps that were halved so often since the stem."""
        width = self.channels * 2**halvings
        return min(width, self.channel_cap) if self.channel_cap else width

    @property
    def latents_of_scale(self) -> tuple[int, ...]:
        """Channels of z in the groups of each scale."""
        return (self.latents,) * len(self.groups) if isinstance(self.latents, int) else self.latents

    @property
    def halvings_of_group(self) -> tuple[int, ...]:
        """How often the maps of each group were halved since the stem, top first."""
        top = self.blocks + len(self.groups) - 1
        return tuple(top - scale for scale, count in enumerate(self.groups) for _ in range(count))

    @property
    def group_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) of each group's latents, top first."""
        sides = [(side + 2 * self.border) // self.unshuffle for side in self.shape[1:]]
        return tuple(
            # The last scale's maps were halved as often as the blocks did.
            (self.latents_of_scale[self.blocks - halvings - 1], *(side >> halvings for side in sides))
            for halvings in self.halvings_of_group
        )


_IMAGES_256 = {"shape": (3, 256, 256), "channels": 30, "groups": (4, 4, 4, 8, 16), "flows": 2, "bits": 5}
_ONE_CELL = {"encoder_cells": 1, "decoder_cells": 1}
_PLAIN_CELLS = {"decoder_cell": "regular", "squeeze_excitation": False, "weight_norm": False}
_LAPTOP32 = {"unshuffle": 2, "channels": 24, "channel_cap": 64, "groups": (1, 1, 1), "latents": (16, 16, 4)}
_LAPTOP32 |= _ONE_CELL | {"mixtures": 2, "bits": 5}
_HIERARCHY32 = {"shape": (1, 32, 32), "unshuffle": 4, "channels": 32, "channel_cap": 64, "likelihood": "bernoulli"}
_HIERARCHY32 |= _ONE_CELL | _PLAIN_CELLS
PRESETS: dict[str, dict[str, Any]] = {
    "mnist": {"shape": (1, 28, 28), "border": 2, "blocks": 2, "block_cells": 3, "groups": (5, 10)}
    | {"likelihood": "bernoulli"},
    "cifar10": {"channels": 128, "groups": (30,), "flows": 1},
    "imagenet32": {"channels": 192, "groups": (28,), "flows": 1},
    "celeba64": {"shape": (3, 64, 64), "channels": 64, "groups": (5, 10, 20), "flows": 1},
    # The same cells at half the width, in fewer groups: what an H100-class GPU trains within minutes.
    "gpu64": {"shape": (3, 64, 64), "channels": 32, "groups": (2, 4, 8), "flows": 1},
    "celeba_hq256": _IMAGES_256,
    "ffhq256": _IMAGES_256,
    # Measured on two CPU cores: more updates and low-resolution latents gain more there than NVAE's own cells.
    "laptop32": _LAPTOP32 | _PLAIN_CELLS,
    "laptop32_cells": _LAPTOP32,
    "hierarchy32": _HIERARCHY32 | {"groups": (1, 1, 1), "latents": (8, 4, 2)},
    # The same cells in the same order, but nothing is said of the image below the 1x1 group.
    "hierarchy32_top": _HIERARCHY32 | {"blocks": 3, "groups": (1,), "latents": 8},
    "smoke": {"channels": 8, "groups": (1, 2), "latents": 4, "mixtures": 2, "bits": 5} | _ONE_CELL,
}
