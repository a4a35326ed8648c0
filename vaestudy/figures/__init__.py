"""Tables, arrays and images in, a figure with its alternative sentence out."""

# ruff: noqa: F403 (each module names what is public in its __all__)
from vaestudy.figures.answer import *
from vaestudy.figures.beta_vae import *
from vaestudy.figures.draw import *
from vaestudy.figures.figure import *
from vaestudy.figures.moving import *
from vaestudy.figures.nvae import *
from vaestudy.figures.table import *
from vaestudy.figures.vae import *
