import base64
import json
import re
import subprocess
import sys

import nbformat
import pytest
from browser import Parsed, dom, needed
from nbformat.v4 import new_output
from small_notebook import CELLS, write

import vaestudy
from vaestudy.errors import InputError
from vaestudy.experiments import evidence
from vaestudy.report import execute, prose, site
from vaestudy.report import html as pages


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of two small notebooks whose study has run once, and what it said."""
    root = tmp_path_factory.mktemp("project")
    write(root / "notebooks" / "01_vae.ipynb")
    second = ("# Second: the next", ['figures.statement("Nothing but {n}.", n=2)'])
    write(root / "notebooks" / "02_vae_again.ipynb", cells=[CELLS[1], *second])
    said = []
    index = site.study("smoke", root / "reports", root / "notebooks", say=said.append)
    return root, index, said


@pytest.fixture(scope="module")
def first(project):
    return (project[1].parent / "01_vae.html").read_text()


def test_study_writes_pages_notebooks_and_numbers(project):
    root, index, said = project
    assert index == root / "reports" / "smoke" / "index.html"
    names = {path.name for path in index.parent.iterdir()}
    assert names >= {"index.html", "results.json", "01_vae.html", "01_vae.ipynb", "02_vae_again.html"}
    assert not [name for name in names if "partial" in name or name.startswith(".")]
    assert said[0] == "01_vae.ipynb: running in the smoke profile"
    assert said[-1] == f"the report is at {index}"


def test_another_parameter_or_another_cell_is_not_fresh(project):
    root, index, _ = project
    source, executed = root / "notebooks" / "01_vae.ipynb", index.parent / "01_vae.ipynb"
    assert execute.is_fresh(source, {"profile": "smoke"}, executed)
    assert not execute.is_fresh(source, {"profile": "smoke", "beta": 4}, executed)
    changed = write(root / "other" / "01_vae.ipynb", cells=[*CELLS, ["1 + 1"]])
    assert not execute.is_fresh(changed, {"profile": "smoke"}, executed)
    assert not execute.is_fresh(source, {"profile": "smoke"}, root / "none.ipynb")


@pytest.mark.parametrize("added", ["smoke/records/a-00.jsonl", "published/night/records/a-00.jsonl"])
def test_a_page_is_not_fresh_once_records_that_it_may_read_are_added(project, tmp_path, monkeypatch, added):
    source, given = project[0] / "notebooks" / "01_vae.ipynb", {"profile": "smoke"}
    monkeypatch.setattr(evidence, "project_root", lambda: tmp_path)
    before = execute.fingerprint(source, given)
    assert execute.fingerprint(source, given) == before
    path = tmp_path / "reports" / added
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    assert execute.fingerprint(source, given) != before


def test_the_page_reads_like_the_notebook(first):
    assert "<title>Small: a notebook</title>" in first
    assert "Costs $5, <code>$HOME</code> and <math" in first
    assert 'display="block"' in first
    assert "The square of 1 is 1." in first
    assert '<span class="kn">import</span>' in first
    assert first.count('<details class="code"') == first.count("<summary>Code</summary>") >= 5
    call = "figures.Figure(fig, &#34;A line.&#34;, &#34;A line that rises.&#34;"
    assert f'<details><summary>call</summary><pre tabindex="0">{call}' in first
    data = re.search(r'<a download="figure-1.csv" href="data:text/csv;base64,([^"]+)"', first)[1]
    assert base64.b64decode(data).decode() == "y\n1.0\n1.0\n"
    assert 'aria-label="A line that rises."' in first
    assert '<a href="01_vae.html" aria-current="page">Small</a>' in first
    assert 'rel="next" href="02_vae_again.html"' in first
    assert 'rel="prev" href="index.html"' in first
    order = [first.index(text) for text in ("Costs $5", "The square of", "a &lt; b", "A line.", "Moving.")]
    assert order == sorted(order)


def test_contents_lead_to_sections_and_each_figure_has_an_address():
    cells = [
        "# T\n\n## Why $\\beta$?\n\n### `x` [there](02_vae.ipynb)",
        "## Same\n\n| | a |\n|-|-|\n| b | 1 |",
        "## Same",
    ]
    text, contents = pages.numbered("\n".join(map(pages.prose, cells)) + figure("one") + figure("two"))
    assert [(entry["level"], entry["href"]) for entry in contents] == [
        ("2", "#why-β"),
        ("3", "#x-there"),
        ("2", "#same"),
        ("2", "#same-2"),
    ]
    assert "<math" in contents[0]["title"]
    assert "<a" not in contents[1]["title"]
    for entry in contents:
        assert text.count(f'id="{entry["href"][1:]}"') == 1
    assert 'id="figure-1"' in text
    assert 'id="figure-2"' in text
    assert '<div class="wide" tabindex="0" role="group" aria-labelledby="figure-2-caption"' in text
    assert "<th></th>" not in text


def figure(caption):
    return f'<figure class="figure"><div class="wide" style=""></div><figcaption>{caption}</figcaption></figure>'


def test_text_from_anywhere_is_escaped(tmp_path):
    """Markup in a heading, a file, a table's cell and column, a label, a caption, an output, a parameter, a claim."""
    bad = "<img src=x onerror=alert(1)>"
    cells = [
        f"# Title `{bad}`",
        [f"bad = {bad!r}\n", "from vaestudy import figures\n", "import numpy as np\n", "print(bad)"],
        ["figures.table([{bad: bad}], bad)"],
        ['figures.statement("{bad}", bad=bad)'],
        ['figures.headline([{"quantity": bad, "ours": bad, "published": bad, "source": bad}], bad)'],
        ["fig, axes = figures.canvas()\n", "axes.set_title(bad)\n", "figures.Figure(fig, bad, bad, {})"],
        ["figures.player(np.zeros((1, 1, 1, 8, 8)), bad, bad, {}, labels=[bad], steps=[bad])"],
        ["figures.provenance([{'run': bad, 'data': {bad: bad}}, {'run': 2, 'data': {bad: bad}}])"],
        [SHOW_CLAIMS, "show_claims(bad)"],
        ["bad"],
    ]
    write(tmp_path / "notebooks" / "01_vae.ipynb", cells=cells)
    folder = site.study("smoke", tmp_path, tmp_path / "notebooks", say=lambda line: None).parent
    partial = nbformat.read(folder / "01_vae.ipynb", as_version=4)
    partial.cells[-1].outputs = [new_output("error", ename=bad, evalue=bad)]
    partial.metadata.papermill.parameters["data_dir"] = bad
    nbformat.write(partial, folder / f"02_{bad}.partial.ipynb")
    nbformat.write(partial, folder / "01_vae.ipynb")
    (folder / f"01_vae_data_dir={bad}.html").touch()
    site.write("smoke", folder)
    for name in ("index.html", "01_vae.html"):
        text = (folder / name).read_text()
        assert "onerror=alert" in text
        assert "<img src=x" not in text


SHOW_CLAIMS = """from IPython.display import display
def show_claims(claim="It helps", families=("1 primary", "1 secondary")):
    one = {"id": "1", "claim": claim, "source": claim, "n": 3, "effect": 2.0, "interval": [1.0, 3.0], "unit": claim}
    one |= {"exploratory": False, "reason": None}
    other = one | {"id": "2", "claim": "Not shown", "source": "", "effect": None, "interval": None}
    rows = [one | {"verdict": "supported", "decidable": True, "family": families[0]}]
    rows += [other | {"verdict": "undecided", "decidable": False, "smallest_visible": 0.5, "family": families[1]}]
    data = {"kind": "claims", "caption": "c", "alt": "a", "data": rows}
    display({"text/html": "", "application/vnd.vaestudy+json": data}, raw=True)
"""


def test_the_index_answers_with_the_claims_and_a_picture_of_each_stage(tmp_path):
    drawn = "fig, axes = figures.canvas()\nfigures.Figure(fig, {!r}, 'alt', {{}})"
    path = write(
        tmp_path / "notebooks" / "01_vae.ipynb",
        cells=["# One: a", CELLS[1], CELLS[4], [drawn.format("Marked.")], [drawn.format("Last.")]],
    )
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-2].metadata.tags = ["picture"]
    nbformat.write(notebook, path)
    cells = ["# Two: b", CELLS[1], [drawn.format("First.")], [drawn.format("Second.")]]
    cells += [[SHOW_CLAIMS, "show_claims()"], [SHOW_CLAIMS, 'show_claims(families=("2 secondary", "2 primary"))']]
    write(tmp_path / "notebooks" / "02_vae.ipynb", cells=cells)
    index = site.study("smoke", tmp_path, tmp_path / "notebooks", say=lambda line: None)
    text, results = index.read_text(), json.loads((index.parent / "results.json").read_text())
    assert re.findall(r"<figcaption[^>]*>(Marked|Last|First|Second)", text) == ["Marked", "Second"]
    for part in ("2.0 [1.0, 3.0]", "repeated in 95 % of resamples", "an effect of 0.50"):
        assert part in text
    assert text.count('row">1 It helps<') == text.count('row">2 Not shown<') == 1
    assert text.index("It helps") < text.index("arithmetic")
    assert [claim["id"] for claim in results["claims"]] == ["1", "2", "1", "2"]
    assert results["version"] == vaestudy.__version__


def test_provenance_stands_in_the_footer_alone(first):
    main, footer = first.split("<footer>")
    assert "commit abababababab" in footer
    assert "abababababab" not in main
    assert '<a href="runs.html">The 1 run behind this page</a>' in footer
    assert "Made again by <code>make study PROFILE=smoke</code>" in footer
    assert "with profile = smoke" in footer


def test_the_index_gathers_headlines_findings_and_provenance(project):
    text = project[1].read_text()
    assert '<th scope="row">square</th><td class="number">1.0' in text
    assert "arithmetic" in text
    assert "smoke profile" in text
    assert "device cpu" in text.split("<footer>")[1]
    assert 'href="results.json"' in text


def test_results_hold_every_number_shown(project):
    results = json.loads((project[1].parent / "results.json").read_text())
    assert results["profile"] == "smoke"
    shown = nbformat.read(project[1].parent / "02_vae_again.ipynb", as_version=4)
    assert results["notebooks"]["02_vae_again"]["shown"] == pages.objects(shown)
    assert [found["data"] for found in pages.objects(shown)] == [{"n": 2}]
    found = results["notebooks"]["01_vae"]["shown"]
    kinds = ["statement", "table", "headline", "figure", "player", "provenance"]
    assert [shown["kind"] for shown in found] == kinds
    assert all(shown["caption"] and shown["alt"] for shown in found)
    assert found[0]["data"] == {"beta": 1.0, "square": 1.0}
    assert found[1]["data"] == [{"model": "a < b", "MIG": 0.25, "published": None}]
    assert found[3]["data"] == {"y": [1.0, 1.0]}


def test_run_one_names_its_files_by_what_was_changed(project, monkeypatch):
    root, _, _ = project
    monkeypatch.chdir(root)
    executed, page = site.run_one("notebooks/01_vae.ipynb", {"profile": "smoke", "beta": 3, "data_dir": "a/b c"})
    assert page == root / "reports" / "smoke" / "01_vae_data_dir=a-b-c_beta=3.html"
    assert executed == page.with_suffix(".ipynb")
    assert "The square of 3 is 9." in page.read_text()
    assert "Changed against the study: β 3 in place of 1" in page.read_text()
    assert page.name in (root / "reports" / "smoke" / "index.html").read_text()
    # The study's own copy is another run.
    assert "The square of 1 is 1." in (root / "reports" / "smoke" / "01_vae.html").read_text()


@pytest.mark.parametrize(
    ("given", "said"), [({"beta": 1.0}, ""), ({"beta": 3.0}, "Changed against the study: β 3 in place of 1.")]
)
def test_a_page_names_a_parameter_as_changed_if_it_is_not_the_study_s_own(project, given, said):
    notebook = nbformat.read(project[1].parent / "01_vae.ipynb", as_version=4)
    notebook.metadata.papermill.parameters |= given
    assert pages.changed(notebook) == said


@pytest.mark.parametrize(
    ("stage", "given", "named"),
    [("vae", {"bta": 1}, "bta"), ("nvae", {"profile": "smoke", "image_size": 50}, "50")],
    ids=["name", "combination"],
)
def test_what_cannot_work_stops_before_anything_is_written(stage, given, named, tmp_path):
    source = write(tmp_path / "03_nvae.ipynb", stage=stage)
    with pytest.raises(InputError, match=named):
        execute.run_notebook(source, given, tmp_path / "out" / "x.ipynb")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named_in_one_line(project, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^cannot write to \S+file\S*: .+$"):
        site.study("smoke", tmp_path / "file", project[0] / "notebooks", say=lambda line: None)


def test_a_study_without_notebooks_says_so(tmp_path):
    with pytest.raises(InputError, match="no notebooks"):
        site.study("smoke", tmp_path, tmp_path)


def test_a_failing_cell_is_named_by_the_first_line_of_its_error_and_the_last_report_survives(tmp_path):
    source = write(tmp_path / "01_vae.ipynb", cells=["# One", ["x = 1\n", "raise ValueError('one\\ntwo')"]])
    output = tmp_path / "out" / "01_vae.ipynb"
    output.parent.mkdir()
    output.write_text("the last one")
    with pytest.raises(execute.NotebookError) as error:
        execute.run_notebook(source, {"profile": "smoke", "beta": 2}, output)
    partial, said = tmp_path / "out" / "01_vae.partial.ipynb", str(error.value)
    assert said.startswith("ValueError: one (")
    for part in ("stage vae", "cell 3", "'x = 1'", "profile=smoke, beta=2", str(partial)):
        assert part in said
    assert "\n" not in said
    assert output.read_text() == "the last one"
    assert "ValueError" in partial.read_text()


def test_a_failed_run_leaves_the_old_pages_and_the_index_says_so(tmp_path):
    notebooks, folder, said = tmp_path / "notebooks", tmp_path / "smoke", []
    second = write(notebooks / "02_vae.ipynb", cells=["# Two", ["figures = 2"]])
    write(notebooks / "01_vae.ipynb", cells=["# One", ["1"]])
    site.study("smoke", tmp_path, notebooks, say=lambda line: None)
    pages_before = {path.name: path.read_text() for path in folder.glob("0*.html")}
    assert "partial" not in (folder / "index.html").read_text()
    write(second, cells=["# Two", ["1 / 0"]])
    with pytest.raises(execute.NotebookError):
        site.study("smoke", tmp_path, notebooks, say=said.append)
    assert said == ["01_vae.ipynb: up to date", "02_vae.ipynb: running in the smoke profile"]
    assert {path.name: path.read_text() for path in folder.glob("0*.html")} == pages_before
    text = (folder / "index.html").read_text()
    assert '<a href="02_vae.partial.ipynb">' in text
    assert "stopped in cell 3: ZeroDivisionError: division by zero" in text
    assert '<a href="02_vae.html">Two</a>' in text
    write(second, cells=["# Two", ["2"]])
    site.study("smoke", tmp_path, notebooks, say=lambda line: None)
    assert "partial" not in (folder / "index.html").read_text()


def test_notebooks_run_on_this_interpreter_whatever_is_called_python3(tmp_path, monkeypatch):
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/bin/false"], "display_name": "another", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    source = write(tmp_path / "01_vae.ipynb", cells=["# One", ["import sys\n", "print(sys.executable)"]])
    executed = nbformat.read(execute.run_notebook(source, {}, tmp_path / "x.ipynb"), as_version=4)
    assert executed.cells[-1].outputs[0].text.strip() == sys.executable


def test_nothing_heavy_is_imported_before_a_mistyped_name_is_refused(tmp_path):
    source = write(tmp_path / "01_vae.ipynb")
    code = f"""import sys
import vaestudy.report.papermill_plugin
from vaestudy.report import site
try:
    site.run_one({str(source)!r}, {{"bta": 1}})
except ValueError:
    print(*sys.modules)"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "vaestudy.report.site" in loaded
    assert not {"torch", "matplotlib", "sklearn", "nbconvert", "nbformat", "papermill", "pandas"} & set(loaded)


def test_bad_input_inside_of_a_notebook_stays_bad_input(tmp_path):
    bad = ["from vaestudy.errors import InputError\n", 'raise InputError("no images in ./photos")']
    source = write(tmp_path / "01_vae.ipynb", cells=["# One", bad])
    with pytest.raises(InputError, match=r"no images in \./photos"):
        execute.run_notebook(source, {"profile": "smoke"}, tmp_path / "x.ipynb")


def test_a_kernel_that_dies_is_named(tmp_path):
    source = write(tmp_path / "01_vae.ipynb", cells=["# One", ["import os\n", "os._exit(1)"]])
    with pytest.raises(execute.NotebookError, match="the kernel of stage vae died"):
        execute.run_notebook(source, {}, tmp_path / "x.ipynb")


def test_a_name_that_papermill_injected_unchecked_stops_the_notebook(tmp_path):
    """What `papermill in.ipynb out.ipynb -p bta 4` does: papermill warns and goes on, the notebook does not."""
    import papermill

    cells = ["# One", ["from vaestudy import experiments\n", 'settings = experiments.from_notebook("vae", globals())']]
    source = write(tmp_path / "01_vae.ipynb", cells=cells)
    with pytest.raises(papermill.PapermillExecutionError, match="no parameter 'bta': did you mean 'beta'"):
        papermill.execute_notebook(str(source), str(tmp_path / "x.ipynb"), {"bta": 4}, progress_bar=False)


@pytest.mark.parametrize(
    ("latex", "symbols"),
    [
        (r"\mathbb{E}_{q_\phi(z\mid x)}\left[\log p_\theta(x\mid z)\right]", "𝔼ϕθ"),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "abcd"),
    ],
)
def test_formulas_become_mathml(latex, symbols):
    shown = Parsed(prose.formula(latex)).text
    assert set(symbols) <= set(shown)
    assert not set("\\&$") & set(shown)


def test_the_name_of_a_function_in_a_formula_stands_apart():
    assert prose.formula(r"a \log p").count("<mspace") == 2


def test_formulas_leave_code_and_prices_alone():
    text = prose.prose("`$a$` and ``$b`$`` cost \\$5 or $x_1 * y_2 * z$.\n\n```\n$c$\n```\n\n| a |\n|---|\n| $|x|$ |\n")
    assert "<code>$a$</code>" in text
    assert "<code>$b`$</code>" in text
    assert "$c$" in text
    assert "$5" in text
    assert text.count("<math") == 2
    assert "<em>" not in text
    assert "<table>" in text


def test_links_to_notebooks_become_links_to_pages():
    assert 'href="02_beta_vae.html"' in prose.prose("the [next](02_beta_vae.ipynb)")
    assert 'href="https://example.org/a.ipynb"' in prose.prose("[theirs](https://example.org/a.ipynb)")


def test_outputs_that_need_a_kernel_stay_out():
    widget = {
        "output_type": "display_data",
        "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "IntSlider()", "text/html": "<b>no</b>"},
    }
    assert pages.shown(widget) == ""
    assert pages.shown({"output_type": "stream", "name": "stderr", "text": "warning"}) == ""
    said = pages.shown({"output_type": "stream", "name": "stdout", "text": "a < b"})
    assert re.sub(' tabindex="0"', "", said) == '<pre class="text">a &lt; b</pre>'
    image = {
        "output_type": "display_data",
        "data": {"image/png": base64.b64encode(b"x").decode(), "text/plain": "A dot"},
    }
    assert pages.shown(image) == '<img alt="A dot" src="data:image/png;base64,eA==">'


def test_a_notebook_without_a_title_is_refused(tmp_path):
    source = write(tmp_path / "01_vae.ipynb", cells=["No heading."])
    with pytest.raises(InputError, match="needs a first heading"):
        pages.title(nbformat.read(source, as_version=4))


@needed
def test_the_player_and_the_switch_for_all_code_work_in_a_browser(first, tmp_path):
    move = """<script>const s = document.querySelector('.play input'); s.value = 0; s.oninput();
    document.querySelector('.switch').click()</script>"""
    page = tmp_path / "page.html"
    page.write_text(first.replace("</body>", move + "</body>"))
    shown = dom(page, tmp_path / "user")
    assert "<output>−2 σ</output>" in shown
    assert re.search(r'class="play"[^>]*style="--f: ?0;', shown)
    assert re.search(r'<details class="code" open', shown)
    assert not re.search(r'<details class="code">', shown)
    assert "Hide all code</button>" in shown
