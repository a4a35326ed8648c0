"""What every notebook of the study keeps to: clean, short cells, a parameters cell that everybody can read."""

import ast
import re
from html import unescape
from pathlib import Path

import nbformat
import papermill
import pytest

from vaestudy import settings
from vaestudy.report import html as pages
from vaestudy.report import prose

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 15
WIDEST_LINE = 100

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def stage(path):
    return read(path).metadata["vaestudy"]["stage"]


def test_it_is_valid_and_clean(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info", "vaestudy"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}, cell.source
        if cell.cell_type == "code":
            assert not cell.outputs, cell.source
            assert cell.execution_count is None, cell.source


def test_it_is_written_as_the_filter_of_git_writes_it(path):
    """`nbconvert --clear-output`, through which git sees notebooks after `make lab`, changes nothing in clean ones."""
    assert path.read_text(encoding="utf-8") == nbformat.writes(read(path)) + "\n"


def test_its_name_says_its_stage(path):
    assert re.fullmatch(rf"\d\d_{stage(path)}", path.stem)


def test_its_cells_are_short_and_call(path):
    for cell in code(path):
        lines = cell.source.splitlines()
        assert 0 < len(lines) <= LONGEST_CELL, cell.source
        assert max(map(len, lines)) <= WIDEST_LINE, cell.source
        for node in ast.walk(ast.parse(cell.source)):
            banned = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.While | ast.Try
            assert not isinstance(node, banned), ast.unparse(node)
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "attr", getattr(called, "id", ""))
            assert name not in {"backward", "step", "zero_grad", "open", "system", "exec", "eval"}, ast.unparse(node)


def test_it_begins_with_a_title_and_ends_with_what_made_it(path):
    notebook = read(path)
    assert notebook.cells[0].cell_type == "markdown"
    assert pages.title(notebook) == notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    calls = "\n".join(cell.source for cell in code(path))
    for call in ("figures.headline(", "figures.provenance(", "figures.statement("):
        assert call in calls


def test_papermill_reads_in_its_parameters_what_the_settings_say(path):
    known = papermill.inspect_notebook(str(path)).values()
    found = [(of["name"], of["inferred_type_name"], ast.literal_eval(of["default"]), of["help"]) for of in known]
    fields = settings.fields(stage(path)).values()
    assert found == [(of.name, of.type.__name__, of.default, of.metadata["help"]) for of in fields]


def test_its_formulas_have_a_form_without_network(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            text = prose.prose(cell.source)
            for math in re.findall(r"<math.*?</math>", text, re.S):
                shown = unescape(re.sub(r"<[^>]+>", "", math))
                assert not set("\\&") & set(shown), (shown, cell.source)
            assert "$" not in re.sub(r"<(math|code|pre).*?</\1>", "", text, flags=re.S), cell.source


def test_its_pictures_and_links_stay_at_home(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"!\[|<img|<script|<iframe", cell.source), cell.source
            for link in re.findall(r"\]\(([^)]+)\)", cell.source):
                ours = {notebook.name for notebook in NOTEBOOKS}  # works in JupyterLab, and becomes the page's address
                assert link.startswith(("https://", "#")) or link in ours, link
