"""A study of variational autoencoders: VAE, β-VAE and NVAE."""

from vaestudy.files import project_root

__all__ = ["project_root"]
__version__ = "1.0.0"
