"""Rendered faces whose factors are known."""

from vaestudy.data.faces.render import FACTORS, render, sampled

__all__ = ["FACTORS", "render", "sampled"]
