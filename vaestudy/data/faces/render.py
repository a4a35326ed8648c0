"""Rendered faces: what each factor value and each identity looks like, and which ones a set has.

Fourteen independent factors span 2.2e9 combinations; image i of a set has the one that a hash of i picks, uniform in
every factor (but mild faces seldom wear glasses). The proportions of a face and small shifts of its colours are its
identity: a nuisance that follows from i too, and no factor.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vaestudy.data.cache import cache_path, cached_array
from vaestudy.data.faces.portrait import draw
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.errors import InputError, check_choice

FACTORS = {
    "azimuth": 9,  # to the left .. to the right, as we see it
    "elevation": 5,  # down .. up
    "light": 7,  # from the left .. from the right
    "skin": 5,  # pale .. dark
    "hair_style": 6,  # the rows of HAIR_STYLES
    "hair_colour": 5,  # black, brown, red, blond, grey
    "eyes_open": 4,  # narrow .. wide
    "eye_colour": 3,  # brown, green, blue
    "brows": 4,  # thin .. bushy
    "nose": 4,  # small .. big
    "smile": 5,  # the mouth turned down .. a broad smile
    "mouth_open": 4,  # shut .. open
    "glasses": 3,  # none, fine rims, thick rims
    "background": 4,
}
NAMES, SIZES = tuple(FACTORS), tuple(FACTORS.values())
SIDES = range(16, 257)
VERSION = 2  # of the pictures: raise it with any change that can be seen

SKIN = np.array([(0.97, 0.85, 0.78), (0.93, 0.75, 0.63), (0.82, 0.61, 0.47), (0.62, 0.43, 0.31), (0.42, 0.28, 0.21)])
HAIR = np.array([(0.10, 0.09, 0.09), (0.34, 0.21, 0.13), (0.55, 0.25, 0.12), (0.86, 0.70, 0.42), (0.66, 0.65, 0.64)])
IRIS = np.array([(0.38, 0.22, 0.10), (0.30, 0.50, 0.25), (0.25, 0.48, 0.75)])
WALL = np.array([(0.55, 0.63, 0.70), (0.76, 0.70, 0.60), (0.60, 0.66, 0.55), (0.66, 0.58, 0.66)])
FRAME = np.array([(0.16, 0.12, 0.11), (0.16, 0.12, 0.11), (0.05, 0.05, 0.06)])
RIM = np.array([0.0, 0.0080, 0.0125])
# Whether there is hair and how far it stands off; the height of the hairline over brow and ear, its rise at the
# temples; where hair parts, how the line rises there and falls aside, how uneven it is; curls; how far hair hangs.
HAIR_FIELDS = ("cover", "volume", "front", "side", "temples", "part", "rise", "drop", "fringe", "curl", "length")
HAIR_STYLES = {
    "bald": (0, 0.000, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.000, 0.00),
    "short": (1, 0.040, 0.40, 0.06, 0.10, 0.00, 0.00, 0.00, 0.25, 0.000, 0.00),
    "parted": (1, 0.075, 0.42, -0.02, 0.00, 0.17, 0.12, 0.25, 0.20, 0.000, 0.00),
    "bangs": (1, 0.075, 0.20, -0.60, 0.00, 0.00, 0.00, 0.00, 0.80, 0.000, 0.62),
    "long": (1, 0.070, 0.46, -0.75, 0.00, 0.00, 0.14, 0.30, 0.00, 0.000, 1.30),
    "curly": (1, 0.150, 0.36, -0.28, 0.04, 0.00, 0.00, 0.00, 0.30, 0.035, 0.28),
}

COUNTS = {"full": {"train": 40_000, "test": 4_000}, "mild": {"train": 20_000, "test": 2_000}}
FIRST_TEST = 10_000_000  # its number; the faces to train on are counted from 0

# What makes an identity, each uniform in [-1, 1] and 0 for the average face.
TRAITS = (
    *("wide", "tall", "jaw", "neck", "feature", "eye_x", "eye_y", "brow_y", "brow_arch", "nose_long"),
    *("mouth_y", "mouth_wide", "lips", "skin", "hair", "wall", "cloth"),
)


@dataclass(frozen=True)
class Variation:
    """How far the faces of a set differ."""

    zoom: float  # how much of the picture a head fills
    azimuth: float  # the largest angles, rad
    elevation: float
    feature: float  # size of eyes, brows, nose and mouth
    glasses: float  # the share of the faces that wear them
    free_hues: bool  # walls and clothes of any hue, or muted ones


VARIATIONS = {
    "full": Variation(zoom=1.05, azimuth=0.75, elevation=0.25, feature=1.0, glasses=2 / 3, free_hues=True),
    "mild": Variation(zoom=1.35, azimuth=0.25, elevation=0.08, feature=1.45, glasses=0.2, free_hues=False),
}


def faces(side: int, split: str, data_dir: Path, download: bool, *, variation: str) -> ImageSet:
    """A fixed set of rendered faces, three channels, drawn once and then opened from `data_dir`.

    "mild" faces have muted walls, heads that fill the frame, larger features, narrower poses and fewer glasses.

    Raises:
        InputError: a folder that cannot be written.
    """
    count = COUNTS[variation][split]
    index = np.arange(count) + (FIRST_TEST if split == "test" else 0)
    values = sampled(index, variation)
    name = "faces" if variation == "full" else f"faces_{variation}"
    path = cache_path(data_dir, f"{name}-{VERSION}-{side}-{split}-{count}.npy")
    block = 2**24 // (3 * side**2)

    def pieces(start: int) -> Iterator[np.ndarray]:
        for first in range(start, count, block):
            rows = slice(first, first + block)
            yield render(values[rows], side, variation, identity=index[rows]).numpy()

    storage, _ = cached_array(path, (count, 3, side, side), pieces, source="rendered")
    # Of what is drawn and not of the pixels, whose last bit may differ from one processor to the next.
    plan = hashlib.sha256(f"{name} {VERSION} {split}".encode() + values.tobytes()).hexdigest()
    return ImageSet(name, (3, side, side), storage, factors_of_rows=Factors(NAMES, SIZES, values), checksum=plan)


def sampled(index: Int[np.ndarray, " n"], variation: str = "full") -> Int[np.ndarray, "n k"]:
    """The factor values of the faces with these numbers: independent, and uniform but for the glasses."""
    drawn, wearing = uniform(index, 0, len(SIZES)), VARIATIONS[variation].glasses
    values, column = (drawn * SIZES).astype(np.int64), NAMES.index("glasses")
    values[:, column] = np.digitize(drawn[:, column], [1 - wearing, 1 - wearing / 2])
    return values


def render(
    values: Int[np.ndarray, "n k"],
    image_size: int,
    variation: str = "full",
    *,
    identity: Int[np.ndarray, " n"] | None = None,
) -> UInt8[Tensor, "n 3 {image_size} {image_size}"]:
    """Faces with these factor values (columns as in `FACTORS`); a picture depends on its own row alone.

    Args:
        identity: a number for each face that decides its proportions; None for the average face.

    Raises:
        InputError: factor values that do not exist, a side that is not 16 to 256, or another variation.
    """
    if image_size not in SIDES:
        raise InputError(f"faces are drawn with image_size {SIDES[0]} to {SIDES[-1]}, not {image_size}")
    check_choice("variation", variation, VARIATIONS)
    if values.shape[1] != len(SIZES) or (values < 0).any() or (values >= SIZES).any():
        raise InputError(f"factor values must have {len(SIZES)} columns from 0 to below {', '.join(map(str, SIZES))}")
    look, zoom = _look(values, identity, variation), VARIATIONS[variation].zoom
    chunk = 2**18 // image_size**2  # smaller ones would leave threads waiting for the interpreter

    def part(start: int) -> Tensor:
        rows = {name: values[start : start + chunk] for name, values in look.items()}
        return draw(SimpleNamespace(**rows), image_size, zoom)

    # Operations this small lose more by being split over the cores than whole chunks do.
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return torch.cat(list(pool.map(part, range(0, len(values), chunk))))
    finally:
        torch.set_num_threads(threads)


def uniform(index: np.ndarray, stream: int, columns: int) -> Float[np.ndarray, "n {columns}"]:
    """Numbers in [0, 1) that depend on their place alone: splitmix64 (Steele, Lea and Flood 2014)."""
    place = (2 * index[:, None] + stream).astype(np.uint64) * np.uint64(64) + np.arange(columns, dtype=np.uint64)
    mixed = (place + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def _look(values: np.ndarray, identity: np.ndarray | None, variation: str) -> dict[str, Tensor]:
    how = VARIATIONS[variation]
    value = dict(zip(NAMES, values.T, strict=True))
    share = {name: value[name] / (size - 1) for name, size in FACTORS.items()}
    unit = np.zeros((len(values), len(TRAITS))) if identity is None else 2 * uniform(identity, 1, len(TRAITS)) - 1
    trait = dict(zip(TRAITS, unit.T, strict=True))
    style = np.array(list(HAIR_STYLES.values()))[value["hair_style"]].T
    eye_y = 0.03 + 0.02 * trait["eye_y"]
    look = {
        "azimuth": how.azimuth * (2 * share["azimuth"] - 1),
        "elevation": how.elevation * (2 * share["elevation"] - 1),
        "lamp": 1.1 * (2 * share["light"] - 1),  # around the vertical: 0 in front, positive on the picture's right
        "wide": 1 + 0.06 * trait["wide"],
        "tall": 1 + 0.05 * trait["tall"],
        "jaw": 0.75 + 0.35 * trait["jaw"],  # how much the head narrows to the chin
        "neck": 1 + 0.12 * trait["neck"],
        "feature": how.feature * (1 + 0.05 * trait["feature"]),
        "eye_x": (0.167 + 0.033 * how.feature) * (1 + 0.07 * trait["eye_x"]),
        "eye_y": eye_y,
        "eye_open": 0.35 + 0.75 * share["eyes_open"],
        "brow_y": eye_y + 0.068 + 0.067 * how.feature + 0.015 * trait["brow_y"],
        "brow_arch": 0.8 + 0.6 * trait["brow_arch"],
        "brow_half": 0.010 + 0.020 * share["brows"],  # half the thickness
        "nose": how.feature**0.5 * (0.72 + 0.73 * share["nose"]),
        "nose_long": 1 + 0.13 * trait["nose_long"],
        "mouth_y": -0.365 + 0.02 * trait["mouth_y"],
        "mouth_wide": 1 + 0.10 * trait["mouth_wide"],
        "mouth_gap": 0.10 * share["mouth_open"],
        "smile": -0.5 + 1.6 * share["smile"],  # 0 is straight, 1 a smile
        "lips": 1 + 0.3 * trait["lips"],
        "glasses": RIM[value["glasses"]] * how.feature,  # half the rim's thickness; 0 for none
        "skin": SKIN[value["skin"]] * (1 + 0.03 * trait["skin"])[:, None],
        "hair": HAIR[value["hair_colour"]] * (1 + 0.12 * trait["hair"])[:, None],
        "iris": IRIS[value["eye_colour"]],
        "cloth": _hue(0.5 * trait["cloth"], 0.45, 0.22 if how.free_hues else 0.08),
        "frame": FRAME[value["glasses"]],
        "background": WALL[value["background"]],
        **{f"hair_{field}": column for field, column in zip(HAIR_FIELDS, style, strict=True)},
    }
    if how.free_hues:
        look["background"] = _hue((value["background"] + 0.5 + 0.5 * trait["wall"]) / FACTORS["background"], 0.5, 0.25)
    return {name: torch.tensor(array, dtype=torch.float32)[..., None, None] for name, array in look.items()}


def _hue(turn: np.ndarray, middle: float, swing: float) -> np.ndarray:
    """Colours (n, 3) around the circle of hues."""
    return middle + swing * np.cos(2 * np.pi * (turn[:, None] + np.array([0, 1 / 3, 2 / 3])))
