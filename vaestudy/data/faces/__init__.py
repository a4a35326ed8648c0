"""Rendered faces whose factors are known."""

from vaestudy.data.faces.sets import FACTORS, faces, render

__all__ = ["FACTORS", "faces", "render"]
