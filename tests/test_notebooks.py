"""What every notebook of the study keeps to: clean, short cells, a parameters cell that everybody can read."""

import ast
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import nbformat
import pytest

from vaestudy import settings
from vaestudy.report import html as pages
from vaestudy.report import prose

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 15
WIDEST_LINE = 100
# `name: type = literal  # sentence`; papermill stumbles over an equals sign in the sentence.
PARAMETER = re.compile(r"(?P<name>\w+): (?P<type>str|int|float|bool) = (?P<default>[^#=]+?)  # (?P<help>[^=]+)")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parameters_cell(path):
    tagged = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    return tagged[0]


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


def test_its_parameters_cell_says_what_the_settings_say(path):
    found = []
    for line in parameters_cell(path).source.splitlines():
        match = PARAMETER.fullmatch(line)
        assert match, line
        found.append((match["name"], match["type"], ast.literal_eval(match["default"]), match["help"]))
    fields = settings.fields(stage(path)).values()
    assert found == [(f.name, f.type.__name__, f.default, f.metadata["help"]) for f in fields]


def test_help_notebook_lists_every_parameter(path):
    command = [sys.executable, "-m", "papermill", "--help-notebook", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    for name, field in settings.fields(stage(path)).items():
        assert f"  {name}: {field.type.__name__} (default " in shown
    assert "Unable to parse" not in shown


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
