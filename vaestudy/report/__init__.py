"""Notebooks run strictly, pages rendered from them, and the site over these."""
