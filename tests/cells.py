"""The cells of a notebook in this process, without a kernel, for tests of what they do under many parameters."""

import ast
import json
from pathlib import Path

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def run(stage, **parameters):
    """Run a stage's notebook cell by cell; what each cell shows is made as Jupyter makes it, and returned as text.

    Raises what a cell raises, with the cell's place and first line as a note.
    """
    (path,) = NOTEBOOKS.glob(f"0?_{stage}.ipynb")
    namespace, shown = {"__name__": "__main__"}, []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code":
            continue
        try:
            value = _run("".join(cell["source"]), namespace)
            if hasattr(value, "_repr_mimebundle_"):
                shown.append(value._repr_mimebundle_()["text/plain"])
        except BaseException as error:
            error.add_note(f"in cell {number} of {path.name}: {''.join(cell['source'][:1]).strip()}")
            raise
        if "parameters" in cell["metadata"].get("tags", []):
            namespace |= parameters
    return "\n".join(shown)


def _run(source, namespace):
    """Run statements, and return the value of the last one if it is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), namespace)  # noqa: S102 (our own notebooks)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace) if last else None  # noqa: S307
