"""Many VAEs of one architecture as one network, each weight with a leading axis over the models."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vaestudy.errors import InputError
from vaestudy.models.likelihoods import Bernoulli
from vaestudy.models.vae import VAE


class Stack(nn.Module):
    """VAEs that differ in latent size, seed and weights alone, computed side by side.

    A model with fewer latents than the largest has zero weights in the places of the others: with zero noise there
    they neither act nor learn. Models that see the same images stand next to each other, so that the first layer,
    most of a small network, is one product for all of them.

    Args:
        models: what to stack; their weights are copied (`unstack` copies back).
        shares: how many models see each of the batches of images, in order; by default all of them see one.

    Raises:
        InputError: no models, or models of several architectures.
    """

    def __init__(self, models: Sequence[VAE], shares: Sequence[int] | None = None):
        super().__init__()
        kinds = {replace(model.config, latent_dim=1, seed=0) for model in models}
        if len(kinds) != 1:
            raise InputError(f"stacked models may differ in latent_dim and seed alone: {len(kinds)} kinds given")
        self.models, self.shares = list(models), list(shares or [len(models)])
        largest = max(self.models, key=lambda model: model.config.latent_dim)
        self.likelihood, self.gains_from_bf16 = largest.likelihood, largest.gains_from_bf16
        self.latent_dim = largest.config.latent_dim
        self.names = [name for name, _ in largest.named_parameters()]
        dense = [name for name, layer in largest.named_modules() if isinstance(layer, nn.Linear)]
        # Stored as a product reads them and as its gradient comes: a gradient turned round would be copied.
        self.turned = {f"{name}.weight" for name in dense} - {self.names[0]}
        self.weights = nn.ParameterList([self._stacked(name, largest) for name in self.names])
        layers = [(layer, 2 if hasattr(layer, "weight") else 0) for layer in (*largest.encoder, *largest.decoder)]
        self.depth = len(largest.encoder)
        # Where in `weights` each layer's own begin; kept out of the module's children.
        self.layers = [(layer, sum(count for _, count in layers[:i])) for i, (layer, _) in enumerate(layers)]

    def __len__(self) -> int:
        return len(self.models)

    def posterior(self, x: Float[Tensor, "s n c h w"]) -> tuple[Float[Tensor, "k n d"], Float[Tensor, "k n d"]]:
        """Mean and log standard deviation of q(z|x) for every model; one batch of images for each of the shares."""
        (first, _), *rest = self.layers[: self.depth]
        if isinstance(first, nn.Flatten):
            x = x.flatten(2)
            (first, _), *rest = rest
        split = zip(x, *(weight.split(self.shares) for weight in self.weights[:2]), strict=True)
        h = torch.cat([_shared(first, images, weight, bias) for images, weight, bias in split], dim=1)
        h = h.unflatten(1, (len(self), -1)).transpose(0, 1)
        mean, log_variance = self._run(rest, h).float().chunk(2, dim=2)
        return mean, 0.5 * log_variance

    def decoder(self, z: Float[Tensor, "k n d"]) -> Float[Tensor, "k n p h w"]:
        """The likelihood's parameters of every pixel."""
        return self._run(self.layers[self.depth :], z)

    def nll(self, params: Float[Tensor, "k n p h w"], x: Float[Tensor, "s n c h w"]) -> Float[Tensor, " k"]:
        """-log p(x|z) in nats, mean over each model's batch."""
        if isinstance(self.likelihood, Bernoulli):
            return _BernoulliNLL.apply(params.flatten(2), x.flatten(2), self.shares)
        seen = torch.cat([images.expand(share, *images.shape) for images, share in zip(x, self.shares, strict=True)])
        log_prob = self.likelihood.log_prob(params.flatten(0, 1), seen.flatten(0, 1))
        return -log_prob.unflatten(0, params.shape[:2]).mean(1)

    @torch.no_grad()
    def unstack(self) -> None:
        """Copy the weights back into the models."""
        for name, weight in zip(self.names, self.weights, strict=True):
            for stacked, model in zip(weight, self.models, strict=True):
                own = self._own(model, name)
                own.copy_(stacked[_places(model, own, stacked)])

    def _stacked(self, name: str, largest: VAE) -> nn.Parameter:
        room = self._own(largest, name)
        weight = torch.zeros(len(self.models), *room.shape, device=room.device)
        for stacked, model in zip(weight, self.models, strict=True):
            own = self._own(model, name).detach()
            stacked[_places(model, own, stacked)] = own
        return nn.Parameter(weight)

    def _own(self, model: VAE, name: str) -> Tensor:
        own = model.get_parameter(name)
        return own.T if name in self.turned else own

    def _run(self, layers: list[tuple[nn.Module, int]], h: Tensor) -> Tensor:
        """(models, images, ...) through layers that hold a weight and a bias for each model."""
        for layer, at in layers:
            if isinstance(layer, nn.Linear):
                h = torch.baddbmm(self.weights[at + 1][:, None], h.contiguous(), self.weights[at])
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                # Groups of channels are the models. Between two convolutions all of this is views.
                h = h.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
                h = _convolved(layer, h, self.weights[at], self.weights[at + 1], groups=len(self))
                h = h.unflatten(1, (len(self), -1)).transpose(0, 1)
            elif isinstance(layer, nn.Flatten):
                h = h.flatten(2)
            elif isinstance(layer, nn.Unflatten):
                h = h.unflatten(2, layer.unflattened_size)
            else:
                h = layer(h)
        return h


def _shared(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One layer of several models on the same images: their outputs side by side as channels."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight.flatten(0, 1), bias.flatten())
    return _convolved(layer, x.contiguous(memory_format=torch.channels_last), weight, bias, groups=1)


def _convolved(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    convolve = F.conv_transpose2d if isinstance(layer, nn.ConvTranspose2d) else F.conv2d
    size = {"stride": layer.stride, "padding": layer.padding}
    return convolve(x, weight.flatten(0, 1), bias.flatten(), groups=groups, **size)


def _places(model: VAE, own: Tensor, stacked: Tensor) -> tuple[slice | list[int], ...]:
    """Where a model's weights stand among those of the largest model: latents first, means before log-variances."""
    latents, places = model.config.latent_dim, []
    for have, room in zip(own.shape, stacked.shape, strict=True):
        if have == room:
            places.append(slice(None))
        elif have == latents:
            places.append(slice(latents))
        else:
            places.append([*range(latents), *range(room // 2, room // 2 + latents)])
    return tuple(places)


class _BernoulliNLL(torch.autograd.Function):
    """-log p(x|z) of Bernoulli pixels, Σ softplus(l) - x l, with its gradient σ(l) - x made beside it.

    The logits of a whole sweep are its largest tensor. Here they are widened to fp32 a share at a time, and the
    gradient is rounded to their own precision once. Measured on 42 models of 16x16 pixels, batch 128: 5 ms, by
    autograd 12 ms.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, x: Tensor, shares: list[int]) -> Tensor:
        grad, totals = torch.empty_like(logits), []
        for narrow, slope, images in zip(logits.split(shares), grad.split(shares), x, strict=True):
            wide = narrow.float()
            if ctx.needs_input_grad[0]:
                slope.copy_(torch.sigmoid(wide).sub_(images).mul_(1 / x.shape[1]))
            totals.append(F.softplus(wide).addcmul_(wide, images, value=-1).sum(2).mean(1))
        ctx.save_for_backward(grad)
        return torch.cat(totals)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        (grad,) = ctx.saved_tensors
        return grad * grad_output.to(grad.dtype)[:, None, None], None, None
