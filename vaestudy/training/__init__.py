"""Training: one model, or many as one program, each into the folder of its run."""
# ruff: noqa: F401 - what is imported here is what the package offers

from vaestudy.training.config import Training
from vaestudy.training.objective import Objective
from vaestudy.training.run import Job, Run, folder
from vaestudy.training.sweep import Grid
from vaestudy.training.trainer import fit, fit_many
