"""What every model of the study answers: the named parts of its bound, in nats for each image."""

from typing import NamedTuple

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
