"""Four ways to estimate the gradient of the bound with respect to q(z|x), for one image or many at once."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestudy.models.vae import VAE

BLOCK = 10  # draws that share a baseline


def gradient_draws(model: VAE, x: Float[Tensor, "n c h w"], draws: int) -> dict[str, Float[Tensor, "draws n p"]]:
    """One-sample gradients of the ELBO by the 2·d variational parameters (mean, log std) of each image.

    All are unbiased for the same gradient and share their noise:
    `estimator B` differentiates a sample and takes the KL in closed form (Kingma & Welling, 2014, eq. 7);
    `estimator A` differentiates log p(x, z) - log q(z|x) at the sample (eq. 6);
    `score function` multiplies that difference by the gradient of log q(z|x) (sec. 2.2), which needs no derivative
    of the decoder;
    `score function, baseline` first takes from each difference the mean of the other nine of a block of ten draws.
    """
    with torch.no_grad():
        mean, log_std, noise, z = model._draw(x, draws)
    std = log_std.exp()
    log_likelihood, slope = torch.empty(z.shape[:2], device=z.device), torch.empty_like(z)
    for rows in torch.arange(draws).split(max(1, 1024 // len(x))):
        part = z[rows].requires_grad_()
        value = model._log_likelihood(part, x)
        log_likelihood[rows], slope[rows] = value.detach(), torch.autograd.grad(value.sum(), part)[0]
    # log q(z|x) at z = mean + std·noise depends on log std alone; log p(z) pulls z back to the origin.
    sampled = torch.cat([slope - z, (slope - z) * std * noise + 1], dim=2)
    analytic = torch.cat([slope - mean, slope * std * noise - std.square() + 1], dim=2)
    gain = log_likelihood + (0.5 * (noise.square() - z.square()) + log_std).sum(2)
    direction = torch.cat([noise / std, noise.square() - 1], dim=2)
    blocks = gain[: draws // BLOCK * BLOCK].reshape(draws // BLOCK, BLOCK, len(x))
    left_out = ((blocks - blocks.mean(1, keepdim=True)) * BLOCK / (BLOCK - 1)).flatten(0, 1)
    found = {"estimator B": analytic, "estimator A": sampled, "score function": gain[:, :, None] * direction}
    return found | {"score function, baseline": left_out[:, :, None] * direction[: len(left_out)]}


def spread(draws: Float[Tensor, "draws n p"], samples: int) -> float:
    """Variance of the mean of `samples` draws, summed over the parameters of an image, mean over images."""
    blocks = draws[: len(draws) // samples * samples].unflatten(0, (-1, samples)).mean(1)
    return float(blocks.var(0).sum(1).mean())
