"""Executed notebooks in, HTML pages out: self-contained, formulas as MathML, code folded, no script from elsewhere."""

import ast
import base64
import html
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from markupsafe import Markup
from nbconvert.filters import Highlight2HTML

import vaestudy
from vaestudy import figures, profiles, settings, words
from vaestudy.errors import InputError
from vaestudy.figures.figure import render
from vaestudy.report.execute import first_line, in_words
from vaestudy.report.prose import prose

_HERE = "\ue002"  # stands for the id of a figure until it has one


def shown(output: Any, source: str = "") -> str:
    """One output of a cell as HTML; nothing for what needs a kernel, for warnings and for what other places show.

    A figure has a link to itself, its data as CSV, and the call of `source` that made it.
    """
    if output["output_type"] == "stream":
        return _pre(output["text"]) if output["name"] == "stdout" else ""
    if output["output_type"] == "error":
        return _pre(f"{output['ename']}: {output['evalue']}", "error")
    data = output["data"]
    own = data.get(figures.MIME, {})
    if "application/vnd.jupyter.widget-view+json" in data or own.get("kind") in ("provenance", "records"):
        return ""
    if "text/html" in data:
        return data["text/html"].replace("</figure>", f"{tools(own, source)}</figure>" if own else "</figure>")
    if "image/png" in data:
        alt = html.escape(data.get("text/plain", "an image"))
        return f'<img alt="{alt}" src="data:image/png;base64,{data["image/png"].strip()}">'
    return _pre(data.get("text/plain", ""))


def tools(own: Mapping[str, Any], source: str) -> str:
    """What stands below a figure: a link to it, its data, and the call that made it."""
    text = base64.b64encode(csv(own["data"]).encode()).decode()
    return render("tools", "report", here=_HERE, csv=text, call=last_call(source))


def csv(data: Any) -> str:
    """The data of a figure as CSV: its rows or, of named values, a column each."""
    if isinstance(data, list):
        return pd.json_normalize(data).to_csv(index=False)
    named = pd.json_normalize(data, sep=" ").iloc[0]
    return pd.DataFrame({name: pd.Series(values) for name, values in named.items()}).to_csv(index=False)


def last_call(source: str) -> str:
    """The last statement of a cell, or all of a cell that Python cannot read."""
    try:
        return ast.get_source_segment(source, ast.parse(source).body[-1]) or ""
    except (SyntaxError, IndexError):
        return source


def blocks(notebook: Any) -> Iterator[str]:
    """The notebook as it reads: prose, code and what it shows. Cells that show nothing share one block of code."""
    code = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            code.append(cell.source)
            text = "".join(shown(output, cell.source) for output in cell.outputs)
        else:
            text = prose(cell.source)
        if text:
            yield from _folded(code)
            code = []
            yield referring(text, notebook)
    yield from _folded(code)


def _folded(code: list[str]) -> list[str]:
    if not code:
        return []
    marked = Highlight2HTML(pygments_lexer="python")("\n\n".join(code)).replace("<pre>", '<pre tabindex="0">')
    return [f'<details class="code"><summary>Code</summary>{marked}</details>']


def outputs(notebook: Any) -> list[tuple[Any, Any]]:
    """All outputs of a notebook, each with its cell."""
    return [(cell, output) for cell in notebook.cells for output in cell.get("outputs", [])]


def objects(notebook: Any, kind: str | None = None) -> list[dict]:
    """All that an executed notebook shows with numbers (of one kind), as {kind, caption, alt, data}, in order."""
    found = [output.get("data", {}).get(figures.MIME) for _, output in outputs(notebook)]
    return [own for own in found if own and kind in (None, own["kind"])]


def rows(kind: str, *notebooks: Any) -> list[dict]:
    """The rows of all tables of one kind that executed notebooks show, their keys sorted by the notebooks' files."""
    return [row for notebook in notebooks for shown in objects(notebook, kind) for row in shown["data"]]


def title(notebook: Any) -> str:
    """The notebook's first heading."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.search(r"^# +(.+)$", text, re.M)
    if found is None:
        raise InputError("a notebook of the report needs a first heading: a line '# Title' in a Markdown cell")
    return found[1].strip()


def short_title(notebook: Any) -> str:
    """The notebook's first heading up to its colon."""
    return title(notebook).split(":")[0]


def execution(notebook: Any) -> str:
    """When, how long and with which parameters a notebook was executed."""
    about, ours = notebook.metadata.papermill, notebook.metadata.vaestudy
    values = ", ".join(f"{name} = {in_words(value)}" for name, value in about.parameters.items()) or "its defaults"
    seconds, version = words.number(about.duration, 3), ours.get("version", "of unknown version")
    return f"Executed on {about.end_time[:10]} in {seconds} s with {values}; vaestudy {version}."


def changed(notebook: Any) -> str:
    """What a run's parameters change against the study's own, as a sentence; empty where nothing."""
    known, given = settings.fields(notebook.metadata.vaestudy.stage), notebook.metadata.papermill.parameters
    new = [
        f"{words.label(name)} {in_words(value)} in place of {in_words(known[name].default) or 'none'}"
        for name, value in given.items()
        if name in known and name != "profile" and value != known[name].default
    ]
    return f"Changed against the study: {words.listed(new)}." if new else ""


def toy(notebook: Any) -> bool:
    """Whether the sizes of the run are so small that its models have learnt nothing."""
    stage, profile = notebook.metadata.vaestudy.stage, notebook.metadata.papermill.parameters.get("profile", "")
    return profile in settings.PROFILES and bool(profiles.sizes(stage, profile).get("exploratory"))


def stopped(path: Path) -> str:
    """Where a notebook stopped that was not executed to its end."""
    try:
        found = outputs(nbformat.read(path, as_version=4))
    except (OSError, ValueError):  # it is being written
        return "is running"
    for cell, output in found:
        if output.output_type == "error":
            return f"stopped in cell {cell.execution_count}: {output.ename}: {first_line(output.evalue)}".rstrip(": ")
    return "is running, or was cut short"


def numbered(text: str) -> tuple[str, list[dict]]:
    """A page's HTML with an id at each heading and figure, labelled scroll regions, and its contents (h2 and h3)."""
    used, contents = Counter(), []

    def heading(match: re.Match) -> str:
        level, inner = match.groups()
        words = html.unescape(re.sub(r"<[^>]+>", "", inner))
        name = re.sub(r"\W+", "-", words.lower()).strip("-") or "section"
        used[name] += 1
        name = f"{name}-{used[name]}" if used[name] > 1 else name
        if level in "23":
            contents.append({"level": level, "href": f"#{name}", "title": Markup(re.sub("</?a[^>]*>", "", inner))})
        link = f'<a class="anchor-link" href="#{name}" aria-label="link to this section">#</a>' if level != "1" else ""
        return f'<h{level} id="{name}">{inner}{link}</h{level}>'

    def figure(match: re.Match) -> str:
        kind, inner = match.groups()
        place = kind if kind == "picture" else "figure" if kind in ("figure", "player", "decoder") else "table"
        used[place] += 1
        name = f"{place}-{used[place]}"
        label = f' tabindex="0" role="group" aria-labelledby="{name}-caption"'
        inner = re.sub('<div class="wide"(?![^>]*tabindex)', rf"\g<0>{label}", inner)
        inner = inner.replace("<figcaption>", f'<figcaption id="{name}-caption">')
        return f'<figure class="{kind}" id="{name}">{inner}</figure>'.replace(_HERE, name)

    text = re.sub(r"<h([1-4])>(.*?)</h\1>", heading, text, flags=re.S)
    text = re.sub('<figure class="([a-z]+)">(.*?)</figure>', figure, text, flags=re.S)
    return re.sub(r'<th scope="row">(?=(\d+\.\d+) )', r'<th scope="row" id="claim-\1">', text), contents


def page(notebook: Any, **context: Any) -> str:
    """An executed notebook as a page, opened by title, question, answer and picture; `context` is for the template."""
    first, *rest = blocks(notebook)
    text, contents = numbered("\n".join([first, opening(notebook), *rest]))
    made = {"title": title(notebook), "text": Markup(text), "contents": contents, "execution": execution(notebook)}
    return _render("page", rows("provenance", notebook), **made, **context)


def opening(notebook: Any) -> str:
    """What stands below the question: what the run changed, the answer, and a copy of the page's picture."""
    answers = objects(notebook, "answer")
    answer = figures.answer_html(answers[0]["data"], "sentences", "sure") if answers else ""
    about = {"answer": Markup(referring(answer, notebook)), "picture": Markup(picture(notebook))}
    return render("opening", "report", changed=changed(notebook), toy=toy(notebook), **about)


def referring(text: str, notebook: Any) -> str:
    """HTML in which "claim 2.1" leads to that claim, whose sentence shows on hover and on focus."""
    known = {claim["id"]: html.escape(claim["claim"]) for claim in rows("claims", notebook)}

    def link(match: re.Match) -> str:
        if match[1] not in known:
            return match[0]
        preview = f'<span class="preview" role="tooltip">{known[match[1]]}</span>'
        return f'<a class="reference" href="#claim-{match[1]}">{match[0]}{preview}</a>'

    return re.sub(r"\bclaim (\d+\.\d+)\b", link, text) if 'class="figure"' not in text else text


def index(notebooks: Mapping[str, Any], **context: Any) -> str:
    """The report's first page over the executed notebooks of the stages, by the stem of their pages."""
    headline = []
    for notebook in notebooks.values():
        page = {"page": short_title(notebook)}
        headline += [{name: row.get(name) for name in figures.HEADLINE} | page for row in rows("headline", notebook)]
    caption = "Our numbers beside the published ones; a dash stands where nobody has published one."
    made = {"headline": _table(figures.table, headline, caption), "toy": any(map(toy, notebooks.values()))}
    runs = rows("provenance", *notebooks.values())
    return numbered(_render("index", runs, notebooks=notebooks, here="index", **made, **context))[0]


def primary(notebook: Any) -> str:
    """The table of a stage's primary claims."""
    claims = [claim for claim in rows("claims", notebook) if "primary" in claim["family"]]
    return _table(figures.claims, claims, "The primary claims of this stage.")


def runs_page(notebooks: Mapping[str, Any], **context: Any) -> str:
    """The page of every run behind the report: for a stage those that its page shows, and those in its records."""
    tables = {}
    for notebook in notebooks.values():
        shown, judged = rows("provenance", notebook), rows("records", notebook)
        judged = [{name: row[name] for name in figures.RECORDED if name in row} for row in judged]
        cost = words.number(sum(row.get("seconds") or 0 for row in shown), 3)
        made = _table(figures.provenance, shown, f"{words.counted(len(shown), 'run')}; {cost} s of training in all.")
        models = words.counted(sum(row["models"] for row in judged), "model")
        caption = f"{models} of this page's claims and experiments, a row a setting; seconds of training and scoring."
        tables[short_title(notebook)] = made + _table(figures.provenance, judged, caption)
    return numbered(_render("runs", [], tables=tables, title="Every run", here="runs", **context))[0]


def picture(notebook: Any) -> str:
    """The figure that a reader sees first, as a copy: of the last cell tagged "picture", else the last one."""
    shown = [(cell, output.get("data", {})) for cell, output in outputs(notebook)]
    found = [(cell, data["text/html"]) for cell, data in shown if data.get(figures.MIME, {}).get("kind") == "figure"]
    found.sort(key=lambda pair: "picture" in pair[0].metadata.get("tags", []))
    text = found[-1][1] if found else ""
    # The ids inside of the copy differ from those of the figure that stands further down.
    return re.sub(r'( id="|url\(#|href="#)', r"\1picture-", text).replace('class="figure"', 'class="picture"')


def _table(make: Callable[..., Any], rows: list[dict], caption: str) -> Markup:
    """A table of the rows, nothing where there are none."""
    return Markup(make(rows, caption)._repr_html_() if rows else "")


def _render(name: str, runs: list[dict], **context: Any) -> str:
    about = {"version": vaestudy.__version__, "provenance": Markup(figures.shared(runs)), "runs": len(runs)}
    return render(name, "report", of=sys.modules[__name__], **about, **context)


def _pre(text: str, kind: str = "text") -> str:
    return f'<pre class="{kind}" tabindex="0">{html.escape(text.rstrip())}</pre>' if text.strip() else ""
