"""What people know of their own images: `labels.csv` beside them, a file name and then one column a factor."""

import hashlib
import logging
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from vaestudy.data.imageset import Factors
from vaestudy.errors import InputError, reading

logger = logging.getLogger(__name__)

FILE = "labels.csv"
BINS = 10  # values of a factor made from continuous numbers
GAPS = ("", "NaN", "nan", "NA", "N/A", "n/a", "#N/A")  # of a table; "None" is what glasses may be
SHOWN = 20  # letters of a factor's name: figures have no room for more
MOST = 100  # different whole numbers or texts; a column with more is binned, or says nothing about factors


def read_labels(folder: Path, names: Sequence[str]) -> tuple[Factors, dict] | None:
    """The factors of the images with these names, and a note; None without the file.

    Each distinct whole number or text is one value of the factor, in ascending order. Continuous numbers, and whole
    numbers of more than 100 values, are put into at most 10 bins of about as many images each; the note names their
    edges. Columns that are the same everywhere, or texts of more than 100 kinds, are left out, with a warning.
    InputError for a file that is no table, lists an image twice or not at all, has gaps, or two names shown alike.
    """
    path = folder / FILE
    if not path.exists():
        return None
    table = _table(path)
    wanted = [_plain(name) for name in names]
    if absent := sorted(set(wanted) - set(table.index)):
        raise InputError(f"{path} lacks {len(absent):,} images, such as {absent[0]}: add their lines")
    if extra := len(table) - len(set(wanted)):
        logger.warning("%s lists %d images that are not there", path, extra)
    table = table.loc[wanted]
    coded = {name: _coded(column) for name, column in table.items()}
    sizes = {name: size for name, (values, _) in coded.items() if 1 < (size := int(values.max()) + 1) <= MOST}
    if left_out := [name for name in coded if name not in sizes]:
        logger.warning("%s: no factors are made of %s (constant, or over %d texts)", path, ", ".join(left_out), MOST)
    if not sizes:
        raise InputError(f"{path} has no column that could be a factor: put one after the file names")
    values = np.stack([coded[name][0] for name in sizes], axis=1)
    note = {"labels": hashlib.sha256(values.tobytes() + repr(sizes).encode()).hexdigest()[:16]}
    if binned := {name: coded[name][1] for name in sizes if coded[name][1]}:
        note["binned"] = binned
    return Factors(list(sizes), list(sizes.values()), values), note


def _table(path: Path) -> pd.DataFrame:
    with reading(f"cannot read {path}", "save it as a UTF-8 table of commas"):
        header = path.read_text("utf-8-sig").partition("\n")[0]
        separator = max(",;\t", key=header.count)
        how = {"encoding": "utf-8-sig", "skipinitialspace": True, "keep_default_na": False, "na_values": GAPS}
        read = partial(pd.read_csv, path, sep=separator, dtype={0: str}, **how)
        table = read()
        if separator == ";":  # where many spreadsheets write 1,5
            table = table.assign(**read(decimal=",").select_dtypes("number"))
    if table.shape[1] < 2 or not len(table) or not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path} must have a first line of names, then a file name and one value for each factor")
    # Spreadsheets end lines and files with empty cells.
    table = table.dropna(how="all").dropna(how="all", axis=1).replace([np.inf, -np.inf], np.nan)
    first, *factors = table.columns
    if gaps := [name for name in table.columns if table[name].isna().any()]:
        line = int(table[gaps[0]].isna().to_numpy().argmax()) + 2
        raise InputError(f"{path} has no {gaps[0]} in line {line}: fill the gap or take the column out")
    table.index = table[first].map(_plain)
    if table.index.has_duplicates:
        raise InputError(f"{path} lists {table.index[table.index.duplicated()][0]} twice")
    table = table[factors].rename(columns=_shown)
    if table.columns.has_duplicates:
        alike = table.columns[table.columns.duplicated()][0]
        raise InputError(f"{path} has two columns that would be shown as {alike}: name them in {SHOWN} letters")
    return table


def _shown(name: str) -> str:
    """A column's name in one line, without its middle if it is long."""
    name, half = " ".join(str(name).split()), SHOWN // 2
    return name if len(name) <= SHOWN else f"{name[:half]}…{name[1 - half :]}"


def _coded(column: pd.Series) -> tuple[np.ndarray, list[float] | None]:
    """Values from 0, and the edges of the bins if it took any."""
    number = pd.api.types.is_numeric_dtype(column)
    column = column.astype(float if number else str)
    values, codes = np.unique(column, return_inverse=True)
    if not number or len(values) <= (MOST if (values == np.round(values)).all() else BINS):
        return codes, None
    codes, edges = pd.qcut(column, BINS, labels=False, retbins=True, duplicates="drop")
    return codes.to_numpy().astype(np.int64), [float(edge) for edge in edges]


def _plain(name: str) -> str:
    # Windows writes \ and macOS takes letters apart from their accents.
    return unicodedata.normalize("NFC", str(name).strip().replace("\\", "/").removeprefix("./"))
