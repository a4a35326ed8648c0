"""Rendered faces whose factors are known."""

from vaestudy.data.faces.render import FACTORS, render
from vaestudy.data.faces.sampling import faces, sampled

__all__ = ["FACTORS", "faces", "render", "sampled"]
