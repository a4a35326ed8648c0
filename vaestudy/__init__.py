"""A study of variational autoencoders: VAE, β-VAE and NVAE."""

from pathlib import Path

__version__ = "1.0.0"


def project_root() -> Path:
    """The checkout around the working directory, or the working directory: where data, runs and reports go."""
    here = Path.cwd()
    roots = [folder for folder in (here, *here.parents) if (folder / "vaestudy" / "data").is_dir()]
    return (roots or [here])[0]
