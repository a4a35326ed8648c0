"""A study of variational autoencoders: VAE, β-VAE and NVAE."""

__version__ = "1.0.0"
