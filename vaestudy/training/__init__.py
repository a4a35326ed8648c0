"""Training: one model, or many as one program, into the folder of a run."""

from vaestudy.training.config import Training
from vaestudy.training.objective import Objective
from vaestudy.training.run import Run, folder
from vaestudy.training.trainer import fit, fit_together

__all__ = ["Objective", "Run", "Training", "fit", "fit_together", "folder"]
