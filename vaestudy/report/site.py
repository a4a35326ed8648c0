"""The site: the stages run one after another, a page for each, every number in one file and an index over them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import vaestudy
from vaestudy import settings
from vaestudy.errors import InputError
from vaestudy.files import project_root, replacing, write_json
from vaestudy.report import execute

LEAD = "From the variational bound to a deep hierarchical model, and what β > 1 does to the latents of each."


def study(
    profile: str = "auto", out_root: Path | str | None = None, notebooks: Path | str | None = None,
    progress: bool = False, say: Callable[[str], Any] = print,
) -> Path:  # fmt: skip
    """Run every notebook of the study that is not fresh into `out_root`/<profile>/, render all, return the index.

    The records of a profile that is run in pieces are made first. When a notebook fails, the pages of earlier runs
    stay, and the index says what failed.

    Raises:
        InputError, NotebookError: as `execute.run_notebook`.
    """
    from vaestudy.experiments import evidence

    source = Path(notebooks or project_root() / "notebooks")
    stages = find(source)
    if not stages:
        raise InputError(f"there are no notebooks of the study in {source}: run it inside of its clone")
    profile = {execute.check(path, {"profile": profile}).profile for path in stages}.pop()
    given = {"profile": profile}
    folder = Path(out_root or project_root() / "reports") / profile
    execute.require_writable(folder)
    made = evidence.run_all(profile, evidence.folder(profile), say)
    for path in stages:
        if not made and execute.is_fresh(path, given, folder / path.name):
            say(f"{path.name}: up to date")
            continue
        say(f"{path.name}: running in the {profile} profile")
        _run(path, given, folder / path.name, progress)
    index = write(profile, folder)
    say(f"the report is at {index}")
    return index


def run_one(path: Path | str, given: Mapping[str, Any], progress: bool = False) -> tuple[Path, Path]:
    """Run one notebook into `reports/<profile>/<notebook>_<name>=<value>.ipynb`; return that and its page.

    Raises:
        InputError, NotebookError: as `execute.run_notebook`.
    """
    checked = execute.check(path, given)
    names = [name for name in settings.fields(checked.stage) if name in given and name != "profile"]
    changes = [f"{name}={execute.in_words(getattr(checked, name))}" for name in names]
    stem = re.sub(r"[^\w=.+-]+", "-", "_".join([Path(path).stem, *changes]))[:150]
    output = project_root() / "reports" / checked.profile / f"{stem}.ipynb"
    _run(path, {**given, "profile": checked.profile}, output, progress)
    return output, output.with_suffix(".html")


def _run(path: Path | str, given: Mapping[str, Any], output: Path, progress: bool) -> None:
    try:
        execute.run_notebook(path, given, output, progress)
    finally:
        write(given["profile"], output.parent, output)


def find(folder: Path) -> list[Path]:
    """The study's notebooks in a folder, in order: no copy of one, none under other parameters, none half executed."""
    found = [path for path in sorted(folder.glob("*.ipynb")) if re.fullmatch(r"\d+_\w+", path.stem)]
    return [path for path in found if settings.stage_of(path)]


def write(profile: str, folder: Path, also: Path | None = None) -> Path:
    """Write results.json, a page for each executed stage in a folder (and for `also`), and the index; return that."""
    import nbformat

    from vaestudy.report import html

    nodes = {path.stem: nbformat.read(path, as_version=4) for path in find(folder)}
    titles = {name: html.short_title(node) for name, node in nodes.items()}
    links = {"index": "Overview", **titles, "runs": "Every run"}
    write_json(folder / "results.json", results(profile, nodes))
    extra = {also.stem: nbformat.read(also, as_version=4)} if also and also.exists() else {}
    for name, node in (extra | nodes).items():
        _replace(folder / f"{name}.html", html.page(node, links=links, here=name, command=command(node)))
    _replace(folder / "runs.html", html.runs_page(extra | nodes, links=links))
    text = html.index(
        nodes,
        title="VAE, β-VAE, NVAE: one study in three stages",
        lead=f"{LEAD} These pages were made in the {profile} profile.",
        links=links,
        others=sorted(path.stem for path in folder.glob("*=*.html")),
        unfinished={path.name: html.stopped(path) for path in sorted(folder.glob("*.partial.ipynb"))},
    )
    return _replace(folder / "index.html", text)


def results(profile: str, nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Every number of a report: what all executed notebooks show, and first what `vaestudy.claims.verify` compares."""
    from vaestudy.report import html

    claims, headline, runs = (html.rows(kind, *nodes.values()) for kind in ("claims", "headline", "provenance"))
    notebooks = {}
    for name, node in nodes.items():
        about, own = node.metadata.papermill, {"stage": node.metadata.vaestudy.stage, "title": html.title(node)}
        notebooks[name] = own | {"parameters": about.parameters, "seconds": about.duration, "shown": html.objects(node)}
    found = {"profile": profile, "version": vaestudy.__version__, "claims": claims}
    found |= {"headline": [_summed_up(row) for row in headline if row.get("values")]}
    found |= {"checksums": {row["data"]: row["checksum"] for row in runs if row.get("checksum")}}
    return found | {"notebooks": notebooks}


def command(node: Any) -> str:
    """What makes a page again."""
    given, notebook = node.metadata.papermill.parameters, Path(node.metadata.papermill.input_path).name
    if set(given) <= {"profile"}:
        return f"make study PROFILE={given.get('profile', 'auto')}"
    return f"papermill notebooks/{notebook} " + " ".join(f"-p {k} {execute.in_words(v)}" for k, v in given.items())


def _summed_up(row: Mapping[str, Any]) -> dict[str, Any]:
    """A headline row as `vaestudy.claims.verify` compares it: mean and standard deviation over models."""
    values, digits = row["values"], row.get("digits", 2)
    std = stdev(values) if len(values) > 1 else None
    return {"quantity": row["quantity"], "mean": fmean(values), "std": std, "n": len(values), "digits": digits}


def _replace(page: Path, text: str) -> Path:
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page
