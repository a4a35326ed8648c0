"""Sets of images by name, with their factors where those are known."""

from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.data.paths import default_dir
from vaestudy.data.registry import REGISTRY, DataSetInfo, about, load, train_and_test

__all__ = [
    "REGISTRY",
    "DataSetInfo",
    "Factors",
    "ImageSet",
    "about",
    "default_dir",
    "load",
    "train_and_test",
]
