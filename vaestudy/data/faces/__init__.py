"""Rendered faces whose factors are known."""

from vaestudy.data.faces.render import FACTORS, faces, render, sampled

__all__ = ["FACTORS", "faces", "render", "sampled"]
