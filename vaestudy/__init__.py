"""A study of variational autoencoders: VAE, β-VAE and NVAE."""

from typing import Any

from vaestudy.files import project_root

__all__ = ["explore", "project_root", "runs"]
__version__ = "1.0.0"


def __getattr__(name: str) -> Any:
    """`vaestudy.runs()` and `vaestudy.explore()`, which load torch only where they are used."""
    if name == "runs":
        from vaestudy.training.listing import runs

        return runs
    if name == "explore":
        from vaestudy.figures import explore

        return explore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
