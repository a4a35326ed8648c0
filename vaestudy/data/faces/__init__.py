"""Rendered faces whose factors are known."""
# ruff: noqa: F401 - what is imported here is what the package offers

from vaestudy.data.faces.render import FACTORS, render, sampled
