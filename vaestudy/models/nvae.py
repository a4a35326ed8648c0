"""NVAE: a deep hierarchical variational autoencoder (Vahdat & Kautz, NeurIPS 2020, arXiv 2007.03898)."""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaestudy.errors import InputError
from vaestudy.models.base import Terms
from vaestudy.models.cells import Cell
from vaestudy.models.latents import Flow, Normal, normal, residual_normal
from vaestudy.models.layers import Conv, norms_set
from vaestudy.models.nvae_config import NVAEConfig


class Code(NamedTuple):
    """What one group says of a batch: its posterior before the flow, its prior, and latents before and after it."""

    posterior: Normal
    prior: Normal
    before_flow: Tensor
    z: Tensor

    def kl(self) -> Tensor:
        """Nats of each latent: in closed form where no flow stands between, otherwise at the draw."""
        return self.posterior.kl(self.prior) if self.z is self.before_flow else self.log_ratio()

    def log_ratio(self) -> Tensor:
        """log q(z|x) - log p(z) at the draw; the flow keeps volume."""
        return self.posterior.log_prob(self.before_flow) - self.prior.log_prob(self.z)


class Group(nn.Module):
    """One latent group of the top-down tower: the cells before it, its prior, its posterior, and the way back in."""

    def __init__(self, config: NVAEConfig, index: int, cells: nn.Sequential):
        super().__init__()
        self.config, self.shape, self.cells = config, config.group_shapes[index], cells
        width, latents = config.width(config.halvings_of_group[index]), self.shape[0]
        normed = {"weight_norm": config.weight_norm}
        self.posterior_head = Conv(width, 2 * latents, 3, **normed)
        self.prior_head = self.merge_state = None
        if index > 0:
            self.prior_head = nn.Sequential(nn.ELU(), Conv(width, 2 * latents, 1, **normed))
            self.merge_state = Conv(width, width, 1, **normed)
        self.merge_latent = Conv(width + latents, width, 1, **normed)
        self.flow = Flow(latents, config.flows)

    def prior(self, state: Float[Tensor, "n c h w"]) -> tuple[Tensor | None, Normal]:
        """The raw output of the prior's head and the prior p(z_i | z_<i); the top one is fixed."""
        if self.prior_head is None:
            mean = state.new_zeros(len(state), *self.shape, dtype=torch.promote_types(state.dtype, torch.float32))
            return None, Normal(mean, torch.full_like(mean, self.config.top_prior_std))
        raw = self.prior_head(state)
        return raw, normal(raw)

    def infer(self, state: Float[Tensor, "n c h w"], feature: Float[Tensor, "n c h w"], draw: bool) -> Code:
        """A draw from q(z_i | x, z_<i), or its mean, given what the bottom-up tower saw."""
        prior_raw, prior = self.prior(state)
        raw = self.posterior_head(feature if prior_raw is None else feature + self.merge_state(state))
        residual = self.config.residual and prior_raw is not None
        posterior = residual_normal(prior_raw, raw) if residual else normal(raw)
        before_flow = posterior.sample() if draw else posterior.mean
        return Code(posterior, prior, before_flow, self.flow(before_flow))

    def merge(self, state: Tensor, z: Tensor) -> Tensor:
        """The state with the latents joined to it."""
        return self.merge_latent(torch.cat([state, _laid_out_like(z.to(state.dtype), state)], dim=1))


class NVAE(nn.Module):
    """x -> Terms with one KL for each latent group, top first.

    Figure 2 of the paper: a bottom-up tower reads the image; a top-down tower, which is the generative model as
    well, starts from a learned constant and adds its groups of latents from the smallest maps to the largest.
    """

    # Measured on a CPU: a quarter more images a second, and as good a bound after as many of them.
    gains_from_bf16 = True
    # A CUDA graph may replay the forward pass: no number of Python's decides anything in it.
    capturable = True

    def __init__(self, config: NVAEConfig):
        super().__init__()
        self.config, self.shape, self.group_shapes = config, config.shape, config.group_shapes
        self.likelihood = config.make_likelihood()
        normed, sizes = {"weight_norm": config.weight_norm}, config.halvings_of_group
        top, colours = config.width(sizes[0]), config.unshuffle**2
        outputs = self.likelihood.parameters_per_pixel(config.shape[0]) * colours
        halvings = [block for block in range(config.blocks) for _ in range(config.block_cells)] + [config.blocks]
        # A model's first weights are part of its identity, so they may not depend on what ran before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.stem = Conv(config.shape[0] * colours, config.channels, 3, **normed)
            self.preprocess = _cells(config, "regular", halvings, expansion=3)
            bottom_up = [sizes[-1], *reversed(sizes)]
            self.encoder = nn.ModuleList(_tower(config, "regular", bottom_up, config.encoder_cells))
            self.summary = nn.Sequential(nn.ELU(), Conv(top, top, 1, **normed), nn.ELU())
            self.start = nn.Parameter(torch.rand(1, top, *config.group_shapes[0][1:]))
            cells = [nn.Sequential(), *_tower(config, config.decoder_cell, sizes, config.decoder_cells)]
            self.groups = nn.ModuleList(Group(config, *numbered) for numbered in enumerate(cells))
            self.postprocess = _cells(config, config.decoder_cell, halvings[::-1], expansion=3)
            self.head = nn.Sequential(nn.ELU(), Conv(config.channels, outputs, 3, **normed))

    def compile_parts(self) -> None:
        """Compile the cells for training, each kind once: a deep network as a whole would take many minutes."""
        for module in self.modules():
            if isinstance(module, Cell):
                module.compiled = True

    def forward(self, x: Float[Tensor, "n c h w"]) -> Terms:
        """Both parts of the bound at one draw of the latents; nats per image.

        The KL is analytic for a normal posterior; behind flows it is log q(z|x) - log p(z) at the draw.
        """
        state, codes = self.infer(self.encoder_features(x))
        kl = torch.stack([code.kl().sum((1, 2, 3)) for code in codes])
        return Terms(-self.likelihood.log_prob(self.pixel_params(state), x), kl)

    def kl_per_latent(self, x: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """The terms that `forward` sums: nats of each latent, (n, z, h, w) for each group."""
        return [code.kl() for code in self.infer(self.encoder_features(x))[1]]

    def encode(self, x: Float[Tensor, "n c h w"], draw: int = 0) -> list[Tensor]:
        """Posterior means, each given the means above it, or draws, each given those: (n, z, h, w) for each group."""
        features = [feature.repeat_interleave(draw or 1, 0) for feature in self.encoder_features(x)]
        return [code.z for code in self.infer(features, bool(draw))[1]]

    def decode(self, latents: list[Tensor]) -> Float[Tensor, "n c h w"]:
        """The mean image in [0, 1] of latents for every group, top first."""
        if len(latents) != len(self.groups):
            raise InputError(f"latents are needed for {len(self.groups)} groups, not {len(latents)}")
        return self.sample(len(latents[0]), fixed_top=latents, keep=len(latents))

    def sample(
        self, n: int, temperature: float = 1.0, *, fixed_top: list[Tensor] | None = None, keep: int = 0
    ) -> Float[Tensor, "n c h w"]:
        """Mean images in [0, 1] of n draws from the prior.

        Args:
            n: number of images.
            temperature: factor on every standard deviation; 0 for the means of the prior.
            fixed_top: latents of one image or of n, as `encode` gives them, whose first `keep` groups are not drawn.
            keep: number of groups taken from `fixed_top`.
        """
        if temperature < 0:
            raise InputError(f"temperature must be 0 or more, not {temperature}")
        if not 0 <= keep <= len(fixed_top or ()):
            raise InputError(f"keep must be 0 to the number of groups in fixed_top, not {keep}")

        def choose(index: int, state: Tensor) -> Tensor:
            if index < keep:
                return fixed_top[index].expand(n, -1, -1, -1)
            return self.groups[index].prior(state)[1].sample(temperature)

        return self.likelihood.mean(self.pixel_params(self.generate(n, choose)))

    def log_weights(self, x: Float[Tensor, "n c h w"], samples: int) -> Float[Tensor, "n samples"]:
        """log p(x, z) - log q(z|x) in nats at `samples` draws for each image (Burda et al. 2016, eq. 8)."""
        features, weights = self.encoder_features(x), []
        for _ in range(samples):
            state, codes = self.infer(features)
            ratios = torch.stack([code.log_ratio().sum((1, 2, 3)) for code in codes])
            weights.append(self.likelihood.log_prob(self.pixel_params(state), x) - ratios.sum(0))
        return torch.stack(weights, dim=1)

    @contextmanager
    def reestimated_batch_norm(self, passes: int, n: int, temperature: float = 1.0) -> Iterator[None]:
        """Inside the block, the decoder's batch norm statistics are averages over `passes` of n draws from the prior.

        NVAE, sec. 4.2: those of encoding fit prior samples at a low temperature badly. A pass that leaves any of them
        infinite is dropped.
        """
        before = good = self._statistics()
        twin, kept = copy.deepcopy(self).train(), 0
        for _ in range(passes):
            with torch.no_grad(), norms_set(twin, "momentum", 1 / (kept + 1)):
                twin.sample(n, temperature)
            found = twin._statistics()
            if all(value.isfinite().all() for value in found.values()):
                good, kept = found, kept + 1
            else:
                twin.load_state_dict(good, strict=False)
        try:
            self.load_state_dict(good, strict=False)
            yield
        finally:
            self.load_state_dict(before, strict=False)

    def _statistics(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self.named_buffers() if ".running_" in name}

    def encoder_features(self, x: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """The bottom-up tower: the map that each group's posterior sees of the image, top first."""
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"this NVAE was made for images of shape {self.shape}, not {tuple(x.shape[1:])}")
        x = 2 * F.pad(x, [self.config.border] * 4) - 1
        if self.config.unshuffle > 1:  # by 1 it would be a copy
            x = F.pixel_unshuffle(x, self.config.unshuffle)
        features = [self.preprocess(self.stem(_laid_out_like(x, self.head[1].weight)))]
        for cells in self.encoder:
            features.append(cells(features[-1]))
        return [self.summary(features[-1]), *features[-2:0:-1]]

    def generate(self, n: int, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The top-down tower: its last state, with latents that `choose` gives for (group, state)."""
        state = _laid_out_like(self.start.expand(n, -1, -1, -1), self.head[1].weight)
        for index, group in enumerate(self.groups):
            state = group.cells(state)
            state = group.merge(state, choose(index, state))
        return state

    def pixel_params(self, state: Float[Tensor, "n _ _ _"]) -> Float[Tensor, "n p h w"]:
        """The likelihood's parameters of every pixel: most of the work, which a code does not need."""
        state = self.postprocess(state).to(self.start.dtype)
        # bf16 would round a mean near 1 to about half a level of 8 bits. Meta tensors, without data, know no autocast.
        with torch.autocast("cpu" if state.is_meta else state.device.type, enabled=False):
            params = self.head(state)
        if self.config.unshuffle > 1:
            params = F.pixel_shuffle(params, self.config.unshuffle)
        return F.pad(params, [-self.config.border] * 4)

    def infer(self, features: list[Tensor], draw: bool = True) -> tuple[Tensor, list[Code]]:
        """The last state at a draw from the posterior (or at its means), and the code of each group."""
        codes = []

        def choose(index: int, state: Tensor) -> Tensor:
            codes.append(self.groups[index].infer(state, features[index], draw))
            return codes[-1].z

        return self.generate(len(features[0]), choose), codes


def _laid_out_like(x: Tensor, other: Tensor) -> Tensor:
    """x in the memory format of another map, or of weights; a 3x3 kernel of several channels can tell."""
    is_last = other.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)


def _cells(config: NVAEConfig, kind: str, halvings: Sequence[int], expansion: int = 6) -> nn.Sequential:
    """Cells from the maps of each number of halvings to those of the next."""
    cells = []
    for start, end in itertools.pairwise(halvings):
        resample = "none" if start == end else "down" if start < end else "up"
        widths = config.width(start), config.width(end)
        cells.append(Cell(*widths, kind, config, resample=resample, expansion=expansion))
    return nn.Sequential(*cells)


def _tower(config: NVAEConfig, kind: str, halvings: Sequence[int], count: int) -> list[nn.Sequential]:
    """`count` cells before each group but the first, and one that resamples where the halvings change."""
    return [
        _cells(config, kind, [before] + [here] * (count + (before != here)))
        for before, here in itertools.pairwise(halvings)
    ]
