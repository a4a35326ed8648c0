"""Where data files are, as people write it."""

import os
from pathlib import Path

from vaestudy.errors import InputError, first_line
from vaestudy.files import project_root


def default_dir() -> Path:
    """`$VAESTUDY_DATA`, or `data/` in the project's root."""
    return resolve(os.environ.get("VAESTUDY_DATA") or project_root() / "data")


def resolve(path: str | Path) -> Path:
    """An absolute path; `~` is the home folder, and a relative path may start here, at the project or its notebooks.

    Of several folders that this could mean the first that exists is taken; if none does, the one at the project.
    InputError for a path that this system does not know, or may not look at.
    """
    root = project_root()
    try:
        path = Path(path).expanduser()
        found = (base / path for base in (Path.cwd(), root, root / "notebooks") if (base / path).exists())
        folder = next(found, root / path)
        barred = folder.exists() and not (folder.is_dir() and os.access(folder, os.X_OK))
    except (OSError, ValueError, RuntimeError) as error:  # nobody's home, a name too long, a folder barred
        raise InputError(f"no folder can be reached as {str(path)[:200]!r}: {first_line(error)[:200]}") from error
    if barred:
        raise InputError(f"{folder} is no folder, or none that may be entered: name one that holds the data")
    return folder
