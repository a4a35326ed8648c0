"""Published numbers, each with its source: the column beside ours."""

from typing import NamedTuple


class Number(NamedTuple):
    """A published value in words, or None, and where it stands."""

    value: str | None = None
    source: str | None = None


# Kingma & Welling (2014), Figure 2: lower bound on MNIST test images, nats, read off the plot to about 1 nat.
AEVB_MNIST = {3: -133.5, 5: -118.5, 10: -103.5, 20: -99.5, 200: -100.0}

# Higgins et al. (2017), Table 2: disentanglement metric score in percent on 2D shapes, upper half of 30 scores.
HIGGINS = {
    "true factors": "100",
    "raw pixels": "45.75 ± 0.8",
    "PCA": "84.9 ± 0.4",
    "ICA": "42.03 ± 10.6",
    "DC-IGN": "99.3 ± 0.1",
    "InfoGAN": "73.5 ± 0.9",
    "untrained VAE": "44.14 ± 2.5",
    "VAE": "61.58 ± 0.5",
    "β-VAE": "99.23 ± 0.1",
}

# Vahdat & Kautz (2020), Table 1: with and without flows; MNIST in nats, the others in bits per dimension.
NVAE = {
    "mnist": ("78.19", "78.01"),
    "cifar10": ("2.91", "2.93"),
    "imagenet32": ("3.92", None),
    "celeba64": ("2.03", "2.04"),
    "celeba_hq256": ("0.70", None),
    "ffhq256": ("0.69", "0.71"),
}


def aevb(dataset: str, latent_dim: int) -> Number:
    """The bound that Kingma & Welling report for this data set and number of latents, nats per image."""
    if dataset == "mnist" and latent_dim in AEVB_MNIST:
        return Number(f"{AEVB_MNIST[latent_dim]:g} ± 1", "Kingma & Welling (2014), fig. 2")
    return Number()
