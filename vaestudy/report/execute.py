"""The report: notebooks run strictly, pages rendered, every number shown collected into one file."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import vaestudy
from vaestudy import figures, parameters, project_root
from vaestudy.errors import InputError
from vaestudy.files import replacing, write_json
from vaestudy.report import html as pages

TITLE = "VAE, β-VAE, NVAE: one study in three stages"
LEAD = "From the variational bound to a deep hierarchical model, and what β > 1 does to the latents of each."


class NotebookError(RuntimeError):
    """A notebook that stopped in one of its cells; the message says in which, and where to look."""


def run_notebook(path: Path | str, given: Mapping[str, Any], output: Path | str, progress: bool = False) -> Path:
    """Execute a notebook of this study under the given parameters into `output`, and return that path.

    The parameters are checked first: nothing runs and nothing is written when one of them is wrong. What is executed
    grows in `<output>.partial.ipynb`, takes the place of `output` at the end, and stays there when a cell fails.

    Raises:
        InputError: a wrong parameter, a folder that cannot be written, or bad input that a cell found.
        NotebookError: any other failure of a cell.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    notebook = parameters.inspect(path)
    parameters.check(notebook, given)
    output = Path(output)
    require_writable(output.parent)
    partial, mark = output.with_suffix(".partial.ipynb"), fingerprint(path, given)
    try:
        node = papermill.execute_notebook(
            _literal(path),
            _literal(partial),
            dict(given),
            progress_bar=progress,
            extra_arguments=["--log-level=CRITICAL"],  # of the kernel, which warns of every local socket
        )
    except papermill.PapermillExecutionError as error:
        kind = InputError if error.ename == "InputError" else NotebookError
        raise kind(_failure(notebook, given, error, partial)) from None
    except DeadKernelError:
        reason = f"the kernel of stage {notebook.stage} died, of too little memory most likely: take a smaller profile"
        raise NotebookError(f"{reason} (executed so far: {partial})") from None
    node.metadata["vaestudy"]["fingerprint"] = mark
    with replacing(output) as temporary:
        nbformat.write(node, temporary)
    partial.unlink(missing_ok=True)
    return output


def fingerprint(path: Path | str, given: Mapping[str, Any]) -> str:
    """Digests of all that decides what a notebook would show: its own code, its parameters and the library."""
    digest = hashlib.sha256(json.dumps(dict(given), sort_keys=True).encode())
    for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
        digest.update("".join(cell["source"]).encode() + b"\0")
    return digest.hexdigest() + _library_digest()


@cache
def _library_digest() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(vaestudy.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def is_fresh(path: Path | str, given: Mapping[str, Any], output: Path | str) -> bool:
    """Whether `output` is this very notebook, executed under these parameters by this very library."""
    return _metadata(output).get("vaestudy", {}).get("fingerprint") == fingerprint(path, given)


def render(executed: Path | str, page: Path | str, beside: Iterable[Path] = ()) -> Path:
    """Make an executed notebook into one self-contained page, linked to those of the notebooks `beside` it."""
    node, page = _read(executed), Path(page)
    links = _links(beside, page.name)
    here = next((i for i, link in enumerate(links) if link["current"]), None)
    text = pages.page(
        node,
        version=vaestudy.__version__,
        links=links,
        previous=links[here - 1] if here else None,
        next=links[here + 1] if here is not None and here + 1 < len(links) else None,
        execution=_execution(node),
        provenance=_provenance([row for shown in pages.objects(node, "provenance") for row in shown["data"]]),
    )
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def site(profile: str, executed: Sequence[Path], folder: Path | str) -> Path:
    """Write results.json, a page for each executed notebook and the index over them; return the index."""
    folder = Path(folder)
    nodes = {path.stem: _read(path) for path in executed}
    results = {
        name: {
            "stage": node.metadata.vaestudy.stage,
            "title": pages.title(node),
            "parameters": node.metadata.papermill.parameters,
            "seconds": node.metadata.papermill.duration,
            "shown": pages.objects(node),
        }
        for name, node in nodes.items()
    }
    write_json(folder / "results.json", {"profile": profile, "notebooks": results})
    for path in executed:
        render(path, folder / f"{path.stem}.html", executed)
    with replacing(folder / "index.html") as temporary:
        temporary.write_text(_cover(profile, nodes, _links(executed, "index.html"), folder), encoding="utf-8")
    return folder / "index.html"


def study(
    profile: str = "auto",
    out_root: Path | str | None = None,
    notebooks: Path | str | None = None,
    progress: bool = False,
    say: Callable[[str], Any] = print,
) -> Path:
    """Run every notebook of the study that is not fresh into `out_root`/<profile>/, render all, return the index."""
    found = _stages(Path(notebooks or project_root() / "notebooks"))
    if not found:
        raise InputError("there are no notebooks here: run the study inside of its clone")
    stages = [parameters.inspect(path) for path in found]
    checked = [parameters.check(stage, {"profile": profile}) for stage in stages]
    profile = checked[0].profile
    folder = Path(out_root or project_root() / "reports") / profile
    require_writable(folder)
    given, executed = {"profile": profile}, []
    for stage in stages:
        output = folder / stage.path.name
        if is_fresh(stage.path, given, output):
            say(f"{stage.path.name}: up to date")
        else:
            say(f"{stage.path.name}: running in the {profile} profile")
            run_notebook(stage.path, given, output, progress)
        executed.append(output)
        index = site(profile, executed, folder)
    say(f"the report is at {index}")
    return index


def run_one(path: Path | str, given: Mapping[str, Any], progress: bool = False) -> tuple[Path, Path]:
    """Run one notebook into `reports/<profile>/<notebook>_<name>=<value>.ipynb`; return that and its page."""
    notebook = parameters.inspect(path)
    profile = parameters.check(notebook, given).profile
    changes = [f"{name}={given[name]}" for name in notebook.parameters if name in given and name != "profile"]
    stem = re.sub(r"[^\w=.+-]+", "-", "_".join([notebook.path.stem, *changes]))[:150]
    output = project_root() / "reports" / profile / f"{stem}.ipynb"
    run_notebook(path, {**given, "profile": profile}, output, progress)
    page = output.parent / f"{stem}.html"
    render(output, page, _stages(output.parent))
    site(profile, _stages(output.parent), output.parent)
    return output, page


def require_writable(folder: Path) -> None:
    """Raise InputError unless files can be made in `folder`, which is created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error


def _failure(notebook: parameters.Notebook, given: Mapping, error: Any, executed: Path) -> str:
    first = next((line for line in error.source.splitlines() if line.strip()), "").strip()
    values = ", ".join(f"{name}={value}" for name, value in given.items()) or "no parameters"
    return (
        f"{error.ename}: {error.evalue} (stage {notebook.stage}, cell {error.exec_count}, {first!r}, {values}; "
        f"executed so far: {executed})"
    )


def _stages(folder: Path) -> list[Path]:
    """The study's notebooks in a folder, in order: no copy of one, none under other parameters, none half executed."""
    found = [path for path in sorted(folder.glob("*.ipynb")) if re.fullmatch(r"\d+_\w+", path.stem)]
    return [path for path in found if parameters.stage_of(path)]


def _cover(profile: str, nodes: Mapping[str, Any], links: list[dict], folder: Path) -> str:
    rows = {
        kind: [
            {"stage": pages.title(node).split(":")[0], **row}
            for node in nodes.values()
            for shown in pages.objects(node, kind)
            for row in shown["data"]
        ]
        for kind in ("headline", "provenance")
    }
    stages = [
        {
            "title": pages.title(node),
            "href": f"{name}.html",
            "finding": next((shown["caption"] for shown in reversed(pages.objects(node, "statement"))), ""),
            "execution": _execution(node),
        }
        for name, node in nodes.items()
    ]
    others = sorted(path.name for path in folder.glob("*=*.html"))
    order = ("stage", *figures.HEADLINE)  # a notebook file sorts the keys of its outputs
    rows["headline"] = [{name: row.get(name) for name in order} for row in rows["headline"]]
    for before, row in reversed(list(pairwise(rows["headline"]))):
        row["stage"] = "" if row["stage"] == before["stage"] else row["stage"]
    caption = "Our numbers beside the published ones; a dash stands where nobody has published one."
    return pages.cover(
        version=vaestudy.__version__,
        title=TITLE,
        lead=f"{LEAD} These pages were made in the {profile} profile.",
        links=links,
        headline=figures.table(rows["headline"], caption)._repr_html_() if rows["headline"] else "",
        stages=stages,
        others=[{"href": name, "title": name.removesuffix(".html").replace("_", " ")} for name in others],
        provenance=_provenance(rows["provenance"]),
    )


def _links(notebooks: Iterable[Path], current: str) -> list[dict]:
    names = {"index.html": "Overview"}
    names |= {f"{path.stem}.html": pages.title(_read(path)).split(":")[0] for path in notebooks}
    return [{"href": name, "title": title, "current": name == current} for name, title in names.items()]


def _provenance(rows: list[dict]) -> str:
    return figures.provenance(rows)._repr_html_() if rows else ""


def _execution(node: Any) -> str:
    """When, how long and with which parameters a notebook was executed."""
    about = node.metadata.papermill
    values = ", ".join(f"{name} = {value}" for name, value in about.parameters.items()) or "its defaults"
    seconds = figures.number(about.duration, 3)
    return f"Executed on {about.end_time[:10]} in {seconds} s with {values}; vaestudy {vaestudy.__version__}."


def _read(path: Path | str) -> Any:
    import nbformat

    return nbformat.read(path, as_version=4)


def _metadata(path: Path | str) -> dict:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))["metadata"]
    except (OSError, ValueError, KeyError):
        return {}


def _literal(path: Path | str) -> str:
    """A path whose braces papermill does not fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")
