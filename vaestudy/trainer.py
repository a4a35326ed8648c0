"""Another name for the trainer: `vaestudy.training` has all of it."""

from vaestudy.training import Training, fit

__all__ = ["Training", "fit"]
