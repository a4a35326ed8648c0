"""The parameters of a notebook: what its parameters cell declares, and whether what is given fits.

papermill only warns about a name it does not know, and takes any value; here both stop before anything runs.
"""

import ast
import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vaestudy.errors import InputError


class Notebook(NamedTuple):
    """A notebook of this study: its file, the stage that it tells, and the type of each parameter it declares."""

    path: Path
    stage: str
    parameters: dict[str, str]


def stage_of(path: Path | str) -> str | None:
    """The stage that a notebook's metadata name as `{"vaestudy": {"stage": ...}}`, None for anybody else's."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))["metadata"]["vaestudy"]["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def inspect(path: Path | str) -> Notebook:
    """Read what a notebook of this study declares.

    Raises:
        InputError: there is no such notebook, or it is none of this study.
    """
    import papermill

    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no notebook {path}")
    stage = stage_of(path)
    if stage is None:
        raise InputError(f"{path} is no notebook of this study: its metadata name no stage")
    declared = papermill.inspect_notebook(str(path).replace("{", "{{").replace("}", "}}"))
    return Notebook(path, stage, {name: found["inferred_type_name"] for name, found in declared.items()})


def check(notebook: Notebook, given: Mapping[str, Any]) -> Any:
    """The stage's settings under the given parameters.

    Raises:
        InputError: a name that the notebook does not declare, a value of another type or out of range.
    """
    from vaestudy import stages

    for name in given:
        if name not in notebook.parameters:
            raise InputError(_unknown(name, notebook.parameters, notebook.path.name))
    return stages.settings(notebook.stage, **given)


def from_text(notebook: Notebook, given: Mapping[str, str]) -> dict[str, Any]:
    """Words of a command line as Python values; what is declared as text stays text, and so does what is no value."""
    return {name: text if notebook.parameters.get(name) == "str" else _literal(text) for name, text in given.items()}


def assigned(cells: Iterable[str]) -> set[str]:
    """Names that parameter cells set: those that papermill injects, and those that hold typed assignments alone."""
    names = set()
    for source in cells:
        try:
            body = ast.parse(source).body
        except SyntaxError:  # a cell with a %magic sets no parameter
            continue
        if body and all(isinstance(line, ast.AnnAssign) for line in body):
            names |= {line.target.id for line in body}
        elif source.startswith("# Parameters"):
            names |= {target.id for line in body if isinstance(line, ast.Assign) for target in line.targets}
    return names


def check_assigned(known: Iterable[str]) -> None:
    """Stop a running notebook whose parameter cells have set a name that is not among `known`.

    Raises:
        InputError: naming the first such name, and the one that was probably meant.
    """
    from IPython import get_ipython

    shell, known = get_ipython(), list(known)
    cells = [] if shell is None else shell.user_ns.get("In", [])
    for name in sorted(assigned(cells) - set(known)):
        raise InputError(_unknown(name, known, "the notebook"))


def _unknown(name: str, known: Iterable[str], owner: str) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
    return f"{owner} has no parameter {name!r}: {hint}"


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
