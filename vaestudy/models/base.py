"""What every model of the study answers: the named parts of its bound, in nats for each image."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


class Posterior(NamedTuple):
    """A diagonal Gaussian q(z|x) and the sample that was decoded, for objectives that look inside the KL."""

    mean: Float[Tensor, "n d"]
    log_std: Float[Tensor, "n d"]
    sample: Float[Tensor, "n d"]


class Terms(NamedTuple):
    """The negative log-likelihood and the KL divergences of a batch: nats per image, never averaged or weighted.

    Kingma & Welling (2014), eq. 3: the evidence lower bound is -(nll + kl.sum(0)).
    """

    nll: Float[Tensor, " n"]
    kl: Float[Tensor, "groups n"]
    posterior: Posterior | None = None


@runtime_checkable
class Model(Protocol):
    """What training (`shape` and `forward` alone), figures and scores ask of a `torch.nn.Module`.

    Latents come in groups, those sampled first at the front: vectors (n, d) or maps (n, d, h, w).
    """

    shape: tuple[int, int, int]  # (channels, height, width) of its images
    config: Any  # a dataclass or plain JSON: with the class, what a run of the model is known by

    def forward(self, x: Float[Tensor, "n c h w"]) -> Terms:
        """The parts of the bound for each image."""

    def encode(self, x: Float[Tensor, "n c h w"], draw: int = 0) -> list[Tensor]:
        """The means of q(z|x) for each group given the means above it, or so many draws for each image in a row."""

    def decode(self, latents: list[Tensor]) -> Float[Tensor, "n c h w"]:
        """The mean images of p(x|z), within [0, 1]."""

    def sample(self, n: int, temperature: float = 1.0) -> Float[Tensor, "n c h w"]:
        """Mean images of n draws from the prior, whose standard deviations are multiplied by the temperature."""

    def kl_per_latent(self, x: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """Nats of each latent, for each group in the shape of `encode`."""

    def log_weights(self, x: Float[Tensor, "n c h w"], samples: int) -> Float[Tensor, "n samples"]:
        """log p(x, z) - log q(z|x) at `samples` draws from q(z|x) for each image, nats (Burda et al., 2016, eq. 8)."""
