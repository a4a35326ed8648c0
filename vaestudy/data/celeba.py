"""CelebA (Liu, Luo, Wang and Tang 2015) with its attributes, in the layouts that people have it in."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from vaestudy.data.decode import Recipe, decode_all, list_images
from vaestudy.data.imageset import Factors, ImageSet
from vaestudy.data.photos import PAGE, members
from vaestudy.errors import InputError, reading

SPLITS = ("train", "valid", "test")
CROP = (15, 40, 163, 188)
IMAGES, PARTITION, ATTRIBUTES = "img_align_celeba", "list_eval_partition", "list_attr_celeba"
# What is needed, and the places that it may be in.
LAYOUT = {IMAGES: (f"{IMAGES}/{IMAGES}", IMAGES)}
LAYOUT |= {f"{name}.txt or .csv": (f"{name}.txt", f"{name}.csv") for name in (PARTITION, ATTRIBUTES)}
ADVICE = (
    f"put {IMAGES}/ (unzipped), {PARTITION}.txt and {ATTRIBUTES}.txt from {PAGE}, the same lists as .csv, "
    "or parquet files of the splits into celeba in data_dir"
)
NAMES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
    "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip


def celeba(side: int, split: str, data_dir: Path, download: bool) -> ImageSet:
    """CelebA aligned and cropped: 162,770 faces to train on, 19,867 valid, 19,962 test, 40 binary attributes each.

    In `data_dir/celeba`, or `data_dir` itself: the folder of images and two lists, .txt as published or .csv, or
    parquet files whose names begin with the split. The box (15, 40)-(163, 188) is resized to `side` with the bilinear
    filter (Vahdat and Kautz 2020; their "test" is the valid split). All three splits share one decoded array.
    InputError for missing files, or lists that disagree with each other or with the images.
    """
    here = any((data_dir / f"{PARTITION}{suffix}").exists() for suffix in (".txt", ".csv"))
    root = data_dir if here else data_dir / "celeba"
    if shards := sorted(root.glob("**/*.parquet")):
        marks, parts, decode = _from_parquet(root, shards)
    else:
        marks, parts, decode = _from_lists(root, data_dir, download)
    factors = Factors(list(marks.columns), [2] * marks.shape[1], (marks > 0).to_numpy(np.uint8))
    decode = partial(decode, Recipe(side, CROP), data_dir)
    return members("celeba", decode, factors, parts == SPLITS.index(split), split, {})


def _from_lists(root: Path, data_dir: Path, download: bool) -> tuple[pd.DataFrame, np.ndarray, Callable]:
    """The table of attributes (images, 40), each image's split, and what decodes the images by a recipe."""
    found = {what: [root / name for name in names if (root / name).exists()] for what, names in LAYOUT.items()}
    if missing := [what for what, paths in found.items() if not paths]:
        if not download:
            raise InputError(f"{root} lacks {', '.join(missing)}: {ADVICE}")
        from torchvision.datasets import CelebA

        with reading("the download of celeba failed", ADVICE):  # as it does often: Drive has a daily quota
            CelebA(data_dir, download=True)
        return _from_lists(data_dir / "celeba", data_dir, download=False)
    pictures, parts_path, marks_path = (paths[0] for paths in found.values())
    parts = _list(parts_path, (0, 1, 2), "0, 1 or 2", header=None, index_col=0)
    files, listed = list_images(pictures), list(parts.index)
    for which, odd in (("absent", set(listed) - set(files)), ("not listed", set(files) - set(listed))):
        if odd:
            said = f"{len(odd):,} images are {which}, such as {min(odd)}; unzip the published archive again"
            raise InputError(f"{parts_path} disagrees with {IMAGES}: {said}")
    if listed != files:
        raise InputError(f"{parts_path} must list each image once, in the order of the names")
    # The first line counts the images; the line of the attributes' names has no column for those of the files.
    marks = _list(marks_path, (-1, 1), "times 1 or -1", skiprows=1)
    if listed != list(marks.index):
        raise InputError(f"{parts_path} and {marks_path.name} do not list the same images: fetch both from {PAGE}")
    return marks, parts.iloc[:, 0].to_numpy(), partial(decode_all, "celeba", pictures, files)


def _list(path: Path, allowed: tuple[int, ...], words: str, **options) -> pd.DataFrame:
    """A list with the file names as its index; blank lines do not count, and tabs are as good as blanks."""
    layout = {"index_col": 0} if path.suffix == ".csv" else {"sep": r"\s+", **options}
    with reading(f"cannot read {path}", f"fetch it again from {PAGE}"):
        table = pd.read_csv(path, encoding="utf-8-sig", **layout)
    if table.empty or isinstance(table.index, pd.RangeIndex | pd.MultiIndex) or not table.isin(allowed).all(axis=None):
        count = f"{table.shape[1]} " if table.shape[1] > 1 else ""
        raise InputError(f"{path} is damaged: each line must be a file name and {count}{words}")
    return table


def _from_parquet(root: Path, shards: list[Path]) -> tuple[pd.DataFrame, np.ndarray, Callable]:
    """The same of parquet files: a column "image" with the bytes of the image files, and one for each attribute."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{root} holds parquet files: pip install 'vaestudy[parquet]' reads them") from error
    splits = [next((k for k, split in enumerate(SPLITS) if shard.name.startswith(split)), None) for shard in shards]
    if None in splits:
        raise InputError(f"{shards[splits.index(None)]} must begin with its split: {', '.join(SPLITS)}")
    readable = partial(reading, f"cannot read the parquet files in {root}", ADVICE)
    with readable():
        tables = [parquet.ParquetFile(shard) for shard in shards]
        columns = tables[0].schema_arrow.names
        names = [name for name in NAMES if name in columns]
        if "image" not in columns or not names:
            raise KeyError("no column image or no attribute")
        marks = pd.concat([table.read(names).to_pandas() for table in tables], ignore_index=True)
        counts = [table.metadata.num_rows for table in tables]

    def photographs(start: int) -> Iterator[bytes]:
        with readable():
            batches = (batch for table in tables for batch in table.iter_batches(256, columns=["image"]))
            images = (image for batch in batches for image in batch.column(0).field("bytes").to_pylist())
            yield from islice(images, start, None)

    files = [str(shard.relative_to(root)) for shard in shards]
    decode = partial(decode_all, "celeba", root, files, held=(sum(counts), photographs))
    return marks, np.repeat(splits, counts), decode
