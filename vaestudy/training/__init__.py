"""Training: one model, or many as one program, each into the folder of its run."""

from vaestudy.training.config import Training
from vaestudy.training.objective import Objective
from vaestudy.training.run import Job, Run, folder
from vaestudy.training.sweep import Grid
from vaestudy.training.trainer import fit, fit_many

__all__ = ["Grid", "Job", "Objective", "Run", "Training", "fit", "fit_many", "folder"]
