"""Sets of images by name, with their factors where those are known."""
# ruff: noqa: F401 - what is imported here is what the package offers

from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.data.paths import default_dir
from vaestudy.data.registry import REGISTRY, DataSetInfo, about, load, train_and_test
