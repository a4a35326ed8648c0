"""Many VAEs that differ in their weights alone as one network, each weight with a leading axis over the models."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaestudy.errors import InputError
from vaestudy.models.vae import VAE


class Stack(nn.Module):
    """VAEs of one configuration, computed side by side: batched products, and convolutions with a group a model.

    Measured on two CPU cores in one interleaved run of 42 networks of width 128: `torch.func.vmap` over
    `stack_module_state` trains at 0.8 of this speed.

    Args:
        models: what to stack; their weights are copied (see `state_dicts`).

    Raises:
        InputError: no models, or models of several configurations.
    """

    def __init__(self, models: Sequence[VAE]):
        super().__init__()
        if len({replace(model.config, seed=0) for model in models}) != 1:
            raise InputError("stacked models may differ in their seed alone")
        self.models = list(models)
        self.likelihood, self.gains_from_bf16 = models[0].likelihood, models[0].gains_from_bf16
        self.names = [name for name, _ in models[0].named_parameters()]
        self.transposed = transposed_names(models[0])
        of_each = [[self._turned(name, model.get_parameter(name).detach()) for model in models] for name in self.names]
        self.weights = nn.ParameterList([nn.Parameter(torch.stack(weights).contiguous()) for weights in of_each])

    def __len__(self) -> int:
        return len(self.models)

    def posterior(self, x: Float[Tensor, "k n c h w"]) -> tuple[Float[Tensor, "k n d"], Float[Tensor, "k n d"]]:
        """Mean and log standard deviation of q(z|x), for each model of its own images."""
        mean, log_variance = self._run("encoder", x).float().chunk(2, dim=2)
        return mean, 0.5 * log_variance

    def decoder(self, z: Float[Tensor, "k n d"]) -> Float[Tensor, "k n p h w"]:
        """The likelihood's parameters of every pixel."""
        return self._run("decoder", z)

    def log_prob(self, params: Float[Tensor, "k n p h w"], x: Float[Tensor, "k n c h w"]) -> Float[Tensor, "k n"]:
        """log p(x|z) of each image in nats."""
        return self.likelihood.log_prob(params.flatten(0, 1), x.flatten(0, 1)).unflatten(0, params.shape[:2])

    def state_dicts(self) -> list[dict[str, Tensor]]:
        """The weights of each model, as its own `state_dict` has them."""
        stacked = zip(self.names, self.weights, strict=True)
        turned = {name: self._turned(name, weight).detach().clone() for name, weight in stacked}
        return [{name: weight[k] for name, weight in turned.items()} for k in range(len(self))]

    def _turned(self, name: str, weight: Tensor) -> Tensor:
        return weight.mT if name in self.transposed else weight

    def _run(self, part: str, h: Tensor) -> Tensor:
        """(models, images, ...) through the layers of one half, with each model's own weights."""
        weights = dict(zip(self.names, self.weights, strict=True))
        for number, layer in getattr(self.models[0], part).named_children():
            name, bias = f"{part}.{number}.weight", weights.get(f"{part}.{number}.bias")
            if isinstance(layer, nn.Linear):
                h = torch.baddbmm(bias[:, None], h, self._turned(name, weights[name]).mT)
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                convolve = F.conv_transpose2d if isinstance(layer, nn.ConvTranspose2d) else F.conv2d
                # The models are groups of channels. Between two convolutions all of this is views.
                h = h.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
                weight, bias = weights[name].flatten(0, 1), bias.flatten()
                h = convolve(h, weight, bias, layer.stride, layer.padding, groups=len(self))
                h = h.unflatten(1, (len(self), -1)).transpose(0, 1)
            elif isinstance(layer, nn.Flatten):
                h = h.flatten(2)
            elif isinstance(layer, nn.Unflatten):
                h = h.unflatten(2, layer.unflattened_size)
            else:
                h = layer(h)
        return h


def transposed_names(model: VAE) -> set[str]:
    """Weights that a stack stores as a product reads them and as its gradient comes: (inputs, outputs).

    Measured on an AMD EPYC (family 26), two threads: without it a step takes 1.15 of the time for the sweep of the
    laptop (100 models of width 64, compiled), 1.01 for the night's objectives, 1.14 for its sweep.
    """
    return {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
