"""The variational autoencoder of Kingma & Welling (2014), with the networks of the β-VAE papers."""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaestudy.errors import InputError, check_bounds, check_choices
from vaestudy.models.base import Posterior, Terms
from vaestudy.models.likelihoods import LIKELIHOODS, make_likelihood

# Channels of the convolutions (those for images of side 64), fully connected widths and activation of the encoder, and
# both of the decoder. `kingma` is App. C of Kingma & Welling (2014), `higgins` and `conv` are Table 1 of Higgins et al.
# (2017) for 2D shapes and for other images, `burgess` is App. A of Burgess et al. (2018).
NETWORKS = {
    "linear": ((), (), nn.Identity, (), nn.Identity),
    "kingma": ((), (500,), nn.Tanh, (500,), nn.Tanh),
    "mlp": ((), (512, 512), nn.ReLU, (512, 512, 512), nn.ReLU),
    "higgins": ((), (1200, 1200), nn.ReLU, (1200, 1200, 1200), nn.Tanh),
    "conv": ((32, 32, 64, 64), (256,), nn.ReLU, (256,), nn.ReLU),
    "burgess": ((32, 32, 32, 32), (256, 256), nn.ReLU, (256, 256), nn.ReLU),
}


@dataclass(frozen=True)
class VAEConfig:
    """What a VAE is made of.

    Attributes:
        shape: (channels, height, width) of the images.
        latent_dim: number M of latents.
        network: one of NETWORKS.
        width: hidden units (channels of the first convolution) in place of the network's own; 0 keeps those.
        likelihood: bernoulli, gaussian (learned variance) or mixture (discretised logistics).
        mixtures: logistics of each pixel, for `mixture`.
        bits: bits of each channel, for `mixture`.
        seed: of the initial weights.
    """

    shape: tuple[int, int, int]
    latent_dim: int = 10
    network: str = "mlp"
    width: int = 0
    likelihood: str = "bernoulli"
    mixtures: int = 10
    bits: int = 8
    seed: int = 0

    def __post_init__(self):
        _, height, width = self.shape
        check_choices(self, network=NETWORKS, likelihood=LIKELIHOODS)
        check_bounds(self, latent_dim="[1, inf)", width="[0, inf)")
        if NETWORKS[self.network][0] and (height != width or height < 8 or height & (height - 1)):
            raise InputError(f"{self.network} needs square images of side 8, 16, 32 ..., not {height}x{width}")


class VAE(nn.Module):
    """x -> Terms: one group of `latent_dim` Gaussian latents under the prior N(0, I).

    Kingma & Welling (2014), sec. 2.3: both SGVB estimators, with any number L of noise samples for each image.

    Args:
        shape: (channels, height, width) of the images.
        settings: the other fields of VAEConfig.
    """

    capturable = True  # see NVAE

    def __init__(self, shape: tuple[int, int, int], **settings):
        super().__init__()
        self.config = config = VAEConfig(tuple(shape), **settings)
        self.shape = config.shape
        self.likelihood = make_likelihood(config.likelihood, config.mixtures, config.bits)
        # A model's first weights are part of its identity, so they may not depend on what ran before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.encoder, self.decoder = networks(config, self.likelihood.parameters_per_pixel(config.shape[0]))

    @property
    def gains_from_bf16(self) -> bool:
        """Whether bf16 pays on a CPU that has it: for matrix products, not for transposed convolutions."""
        return not NETWORKS[self.config.network][0]

    def posterior(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Mean and log standard deviation of q(z|x); Kingma & Welling (2014), eq. 9."""
        mean, log_variance = self.encoder(x).float().chunk(2, dim=1)
        return mean, 0.5 * log_variance

    def forward(self, x: Float[Tensor, "n c h w"], samples: int = 1) -> Terms:
        """SGVB estimator B (eq. 7): nll averaged over L = `samples` draws of z, and the KL in closed form."""
        mean, log_std, _, z = self.draw(x, samples)
        nll = -self.log_likelihood(z, x).mean(0)
        return Terms(nll, gaussian_kl(mean, log_std).sum(1)[None], Posterior(mean, log_std, z[0]))

    def encode(self, x: Float[Tensor, "n c h w"], draw: int = 0) -> list[Tensor]:
        """Posterior means or so many draws from each posterior, one after another; a single group: [(n, d)]."""
        mean, log_std = (part.repeat_interleave(draw or 1, 0) for part in self.posterior(x))
        return [mean + log_std.exp() * torch.randn_like(mean) if draw else mean]

    def decode(self, latents: list[Tensor]) -> Float[Tensor, "n c h w"]:
        """The mean image of p(x|z), in [0, 1]."""
        return self.likelihood.mean(self.decoder(latents[0]).float())

    def sample(self, n: int, temperature: float = 1.0) -> Float[Tensor, "n c h w"]:
        """Mean images of n draws from the prior N(0, temperature² I)."""
        device = next(self.parameters()).device
        return self.decode([temperature * torch.randn(n, self.config.latent_dim, device=device)])

    def kl_per_latent(self, x: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """KL divergence of each latent, nats: [(n, d)]."""
        return [gaussian_kl(*self.posterior(x))]

    def log_weights(self, x: Float[Tensor, "n c h w"], samples: int) -> Float[Tensor, "n samples"]:
        """log p(x, z) - log q(z|x) at `samples` draws of z for each image, nats (Burda et al., 2016, eq. 8).

        Their mean is SGVB estimator A (eq. 6), which samples the KL as well.
        """
        _, log_std, noise, z = self.draw(x, samples)
        log_prior_ratio = (0.5 * (noise.square() - z.square()) + log_std).sum(2)
        return (self.log_likelihood(z, x) + log_prior_ratio).T

    def draw(self, x: Float[Tensor, "n c h w"], samples: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and log standard deviation of q(z|x), (n, d), and noise and latents of its draws, (samples, n, d)."""
        mean, log_std = self.posterior(x)
        noise = torch.randn(samples, *mean.shape, device=mean.device)
        return mean, log_std, noise, mean + log_std.exp() * noise

    def log_likelihood(
        self, z: Float[Tensor, "samples n d"], x: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "samples n"]:
        """log p(x|z) in nats, of each draw and image."""
        x = x if len(z) == 1 else x.repeat(len(z), 1, 1, 1)
        return self.likelihood.log_prob(self.decoder(z.flatten(0, 1)), x).unflatten(0, (len(z), -1))


def gaussian_kl(mean: Float[Tensor, "*n d"], log_std: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """KL(N(mean, std²) || N(0, 1)) of each latent, nats; Kingma & Welling (2014), App. B."""
    return 0.5 * (mean.square() + torch.exp(2 * log_std) - 1) - log_std


def networks(config: VAEConfig, outputs: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder (image to mean and log-variance) and decoder (latents to `outputs` parameters of each pixel).

    Convolutions of kernel 4 and stride 2 down to 4x4 pixels, where the network has any, then fully connected layers;
    the decoder goes the same way back.
    """
    channels, down, down_activation, up, up_activation = NETWORKS[config.network]
    seen, made = config.shape, (outputs, *config.shape[1:])
    if channels:
        halvings = int(math.log2(config.shape[1])) - 2
        channels = (channels[0],) * (halvings - len(channels)) + channels[-halvings:]
        channels = tuple(c * (config.width or channels[0]) // channels[0] for c in channels)
        seen = made = (channels[-1], 4, 4)
    elif config.width:
        down, up = (config.width,) * len(down), (config.width,) * len(up)
    encoder, decoder, how = [], [], {"kernel_size": 4, "stride": 2, "padding": 1}
    for pair in itertools.pairwise((config.shape[0], *channels)):
        encoder += nn.Conv2d(*pair, **how), nn.ReLU()
    encoder += nn.Flatten(), *_dense((math.prod(seen), *down, 2 * config.latent_dim), down_activation)
    decoder += *_dense((config.latent_dim, *up, math.prod(made)), up_activation), nn.Unflatten(1, made)
    for pair in itertools.pairwise((*channels[::-1], outputs)):
        decoder += nn.ReLU(), nn.ConvTranspose2d(*pair, **how)
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def _dense(widths: tuple[int, ...], activation: type[nn.Module]) -> list[nn.Module]:
    """Fully connected layers from each width to the next, with the activation between them."""
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
    return [part for layer in layers for part in (layer, activation())][:-1]
