"""Training: one model, or many as one program, each into the folder of its run."""

from vaestudy.training.config import Training
from vaestudy.training.objective import Objective
from vaestudy.training.run import Run, folder
from vaestudy.training.sweep import Grid, fit_many
from vaestudy.training.trainer import Job, fit

__all__ = ["Grid", "Job", "Objective", "Run", "Training", "fit", "fit_many", "folder"]
