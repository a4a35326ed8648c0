"""Executed notebooks in, HTML pages out: self-contained, formulas as MathML, code folded, no script from elsewhere."""

import ast
import base64
import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

import nbformat
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

import vaestudy
from vaestudy import figures, profiles, settings, words
from vaestudy.errors import InputError
from vaestudy.report.execute import in_words

TEMPLATES = Path(__file__).parent / "templates"

_FUNCTION, _THIN = "<mi>(?:log|ln|exp|min|max|det|tanh|sin|cos)</mi>", '<mspace width="0.17em" />'
# Code comes first, so that a dollar sign inside of it is no formula.
_MATH = re.compile(
    r"(?P<code>(?P<fence>`{3,}|~{3,}).*?(?P=fence)|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|\\\$|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\s](?:[^$]*?[^$\s\\])?)\$",
    re.S,
)
_HEADING = re.compile(r"<h([1-4])>(.*?)</h\1>", re.S)
_FIGURE = re.compile(r'<figure class="([a-z]+)">(.*?)</figure>', re.S)
_SCROLLS = '<div class="wide"'
_HERE = "\ue002"  # stands for the id of a figure until it has one


def read(path: Path | str) -> Any:
    """A notebook's file."""
    return nbformat.read(path, as_version=4)


def formula(latex: str, display: str = "inline") -> str:
    """LaTeX as MathML. What the converter does not know stays in it as a backslash or an ampersand."""
    from latex2mathml.converter import convert_to_element

    math = convert_to_element(latex.replace("{aligned}", "{split}"), display=display)
    math.set("alttext", latex.strip())
    if display == "block":
        math.set("tabindex", "0")  # on a phone it scrolls
    text = tostring(math, encoding="unicode").replace("&amp;#x", "&#x")
    # Browsers set no space around the name of a function, TeX does.
    text = re.sub(rf"({_FUNCTION})(?=<m(?!o|row><mo))", rf"\1{_THIN}", text)
    return re.sub(rf"(</m(?:[in]|sub|sup|subsup|frac|style|row)>)(?={_FUNCTION})", rf"\1{_THIN}", text)


def prose(source: str) -> str:
    """Markdown as HTML: `$...$` and `$$...$$` as MathML, links to notebooks as links to their pages."""
    from nbconvert.filters import markdown2html

    formulas = []

    def keep(match: re.Match) -> str:
        latex = match["block"] or match["inline"]
        if latex is None:
            return match[0]
        formulas.append(formula(latex, "block" if match["block"] else "inline"))
        return f"\ue000{len(formulas) - 1}\ue001"  # private characters, which Markdown leaves alone

    text = markdown2html(_MATH.sub(keep, source)).replace("\\$", "$")
    text = text.replace("&#57344;", "\ue000").replace("&#57345;", "\ue001")  # as headings have them
    text = re.sub(r'href="(\w+)\.ipynb"', r'href="\1.html"', text)
    text = re.sub(r'<h(\d) id="[^"]*">(.*?)<a class="anchor-link".*?</a></h\1>', r"<h\1>\2</h\1>", text, flags=re.S)
    text = re.sub(r"<th[^>]*></th>", "<td></td>", text)  # a header without words says nothing to a screen reader
    text = text.replace("<table>", '<div class="scroll" tabindex="0" role="group" aria-label="table"><table>')
    text = text.replace("</table>", "</table></div>").replace("<pre>", '<pre tabindex="0">')
    return re.sub("\ue000(\\d+)\ue001", lambda match: formulas[int(match[1])], text)


def shown(output: Any, source: str = "") -> str:
    """One output of a cell as HTML; nothing for what needs a kernel, for warnings and for what the footer shows.

    A figure has a link to itself, its data as CSV, and the call of `source` that made it.
    """
    if output["output_type"] == "stream":
        return _pre(output["text"]) if output["name"] == "stdout" else ""
    if output["output_type"] == "error":
        return _pre(f"{output['ename']}: {output['evalue']}", "error")
    data = output["data"]
    own = data.get(figures.MIME, {})
    if "application/vnd.jupyter.widget-view+json" in data or own.get("kind") == "provenance":
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
    link = f'<a href="#{_HERE}">link</a> <a download="{_HERE}.csv" href="data:text/csv;base64,{text}">data (CSV)</a>'
    call = html.escape(last_call(source))
    fold = f'<details><summary>call</summary><pre tabindex="0">{call}</pre></details>' if call else ""
    return f'<div class="tools">{link} {fold}</div>'


def csv(data: Any) -> str:
    """The data of a figure as CSV: its rows or, of named values, a column each."""
    if isinstance(data, list):
        return pd.json_normalize(data).to_csv(index=False)
    flat = pd.json_normalize(data, sep=" ").iloc[0]
    columns = {name: pd.Series(value if isinstance(value, list) else [value]) for name, value in flat.items()}
    return pd.DataFrame(columns).to_csv(index=False)


def last_call(source: str) -> str:
    """The last statement of a cell, or all of a cell that Python cannot read."""
    try:
        return ast.get_source_segment(source, ast.parse(source).body[-1]) or ""
    except (SyntaxError, IndexError):
        return source


def blocks(notebook: Any) -> Iterator[tuple[str, str]]:
    """The notebook as it reads: ("prose" | "code" | "shown", text). Cells that show nothing share one block of code."""
    code = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            code.append(cell.source)
            outputs = "".join(shown(output, cell.source) for output in cell.outputs)
        if code and (cell.cell_type == "markdown" or outputs):
            yield "code", "\n\n".join(code)
            code = []
        if cell.cell_type == "markdown":
            yield "prose", prose(cell.source)
        elif cell.cell_type == "code" and outputs:
            yield "shown", outputs
    if code:
        yield "code", "\n\n".join(code)


def objects(notebook: Any, kind: str | None = None) -> list[dict]:
    """All that an executed notebook shows with numbers (of one kind), as {kind, caption, alt, data}, in order."""
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [data[figures.MIME] for data in outputs if figures.MIME in data]
    return [shown for shown in found if kind in (None, shown["kind"])]


def rows(notebook: Any, kind: str) -> list[dict]:
    """The rows of all tables of one kind that an executed notebook shows."""
    return [row for shown in objects(notebook, kind) for row in shown["data"]]


def title(notebook: Any) -> str:
    """The notebook's first heading."""
    for cell in notebook.cells:
        found = re.search(r"^# +(.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None
        if found:
            return found[1].strip()
    raise InputError("a notebook of the report needs a first heading: a line '# Title' in a Markdown cell")


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
    own = {name: known[name].default for name in given if name in known and name != "profile"}
    new = [
        f"{words.label(name)} {in_words(given[name])} in place of {in_words(was) or 'none'}"
        for name, was in own.items()
    ]
    return f"Changed against the study: {words.listed(new)}." if new else ""


def toy(notebook: Any) -> bool:
    """Whether the sizes of the run are so small that its models have learnt nothing."""
    stage, profile = notebook.metadata.vaestudy.stage, notebook.metadata.papermill.parameters.get("profile", "")
    return profile in settings.PROFILES and bool(profiles.sizes(stage, profile).get("exploratory"))


def stopped(path: Path) -> str:
    """Where a notebook stopped that was not executed to its end."""
    try:
        notebook = read(path)
    except (OSError, ValueError):  # it is being written
        return "is running"
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                said = next(iter(output.evalue.splitlines()), "")
                return f"stopped in cell {cell.execution_count}: {output.ename}: {said}".rstrip(": ")
    return "is running, or was cut short"


def numbered(text: str) -> tuple[str, list[dict]]:
    """A page's HTML with an id at each heading and figure, labelled scroll regions, and its contents (h2 and h3)."""
    used, contents = Counter(), []

    def unique(name: str) -> str:
        used[name] += 1
        return f"{name}-{used[name]}" if used[name] > 1 else name

    def heading(match: re.Match) -> str:
        level, inner = match.groups()
        words = html.unescape(re.sub(r"<[^>]+>", "", inner))
        name = unique(re.sub(r"\W+", "-", words.lower()).strip("-") or "section")
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
        inner = re.sub(rf"{_SCROLLS}(?![^>]*tabindex)", _SCROLLS + label, inner)
        inner = inner.replace("<figcaption>", f'<figcaption id="{name}-caption">')
        return f'<figure class="{kind}" id="{name}">{inner}</figure>'.replace(_HERE, name)

    text = _FIGURE.sub(figure, _HEADING.sub(heading, text))
    return re.sub(r'<th scope="row">(?=(\d+\.\d+) )', r'<th scope="row" id="claim-\1">', text), contents


def page(notebook: Any, **context: Any) -> str:
    """An executed notebook as a page; `context` is what the template knows beside it.

    It opens with its title and question, the answer that its claims give, and one picture.
    """
    from nbconvert.filters import Highlight2HTML

    highlight, parts = Highlight2HTML(pygments_lexer="python"), []
    for kind, text in blocks(notebook):
        if kind == "code":
            code = highlight(text).replace("<pre>", '<pre tabindex="0">')
            text = f'<details class="code"><summary>Code</summary>{code}</details>'
        parts.append(referring(text, notebook) if kind != "code" else text)
        if len(parts) == 1:
            parts.append(opening(notebook))
    text, contents = numbered("\n".join(parts))
    made = {"title": title(notebook), "text": Markup(text), "contents": contents, "execution": execution(notebook)}
    return _render("page.html.j2", rows(notebook, "provenance"), **made, **context)


def opening(notebook: Any) -> str:
    """What stands below the question: what the run changed, the answer, and a copy of the page's picture."""
    answers, text = objects(notebook, "answer"), changed(notebook)
    about = f'<p class="warning">{html.escape(text)}</p>' if text else ""
    if toy(notebook):
        about += _templates().get_template("toy.html.j2").render()
    if not answers:
        return about
    made = figures.Answer(*(answers[0][name] for name in ("caption", "alt", "data")))
    said = referring(made.opening(), notebook)
    return f'<section class="opening" aria-label="the answer">{about}{said}{picture(notebook)}</section>'


def referring(text: str, notebook: Any) -> str:
    """HTML in which "claim 2.1" leads to that claim, whose sentence shows on hover and on focus."""
    known = {claim["id"]: html.escape(claim["claim"]) for claim in rows(notebook, "claims")}

    def link(match: re.Match) -> str:
        if match[1] not in known:
            return match[0]
        preview = f'<span class="preview" role="tooltip">{known[match[1]]}</span>'
        return f'<a class="reference" href="#claim-{match[1]}">{match[0]}{preview}</a>'

    return re.sub(r"\bclaim (\d+\.\d+)\b", link, text) if 'class="figure"' not in text else text


def index(notebooks: Mapping[str, Any], **context: Any) -> str:
    """The report's first page over the executed notebooks of the stages, by the stem of their pages."""
    stages, headline, runs = [], [], []
    for name, notebook in notebooks.items():
        stage, answers, claims = short_title(notebook), objects(notebook, "answer"), rows(notebook, "claims")
        primary = [claim for claim in claims if "primary" in claim["family"]]
        about = {"title": stage, "href": f"{name}.html", "execution": execution(notebook), "toy": toy(notebook)}
        about |= {"answer": answers[0]["data"] if answers else None, "picture": Markup(picture(notebook))}
        caption = "The primary claims of this stage."
        stages.append(about | {"claims": Markup(figures.claims(primary, caption)._repr_html_() if primary else "")})
        # A notebook's file sorts the keys of its outputs.
        own = [{key: row.get(key) for key in figures.HEADLINE} for row in rows(notebook, "headline")]
        headline += [{"stage": stage, **row} for row in own]
        runs += rows(notebook, "provenance")
    caption = "Our numbers beside the published ones; a dash stands where nobody has published one."
    table = Markup(figures.table(headline, caption)._repr_html_() if headline else "")
    return numbered(_render("index.html.j2", runs, stages=stages, headline=table, here="index", **context))[0]


def runs_page(notebooks: Mapping[str, Any], **context: Any) -> str:
    """The page of every run behind the report: settings, cost and folder, a table for each stage."""
    tables = {}
    for notebook in notebooks.values():
        if found := rows(notebook, "provenance"):
            cost = words.number(sum(row.get("seconds") or 0 for row in found), 3)
            caption = f"{words.counted(len(found), 'run')}; {cost} s of training in all."
            tables[short_title(notebook)] = Markup(figures.provenance(found, caption)._repr_html_())
    return numbered(_render("runs.html.j2", [], tables=tables, title="Every run", here="runs", **context))[0]


def picture(notebook: Any) -> str:
    """The figure that a reader sees first, as a copy: of the last cell tagged "picture", else the last one."""
    found = [
        (cell, output["data"]["text/html"])
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("data", {}).get(figures.MIME, {}).get("kind") == "figure"
    ]
    marked = [text for cell, text in found if "picture" in cell.metadata.get("tags", [])]
    text = (marked[::-1] or [text for _, text in found[::-1]] or [""])[0]
    # The ids inside of the copy differ from those of the figure that stands further down.
    return re.sub(r"\bf([0-9a-f]{8}-)", r"p\1", text).replace('class="figure"', 'class="picture"')


def _render(template: str, runs: list[dict], **context: Any) -> str:
    shared = Markup(figures.provenance(runs).said() if runs else "")
    made = {"version": vaestudy.__version__, "provenance": shared, "runs": len(runs)}
    return _templates().get_template(template).render(**made, **context)


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _pre(text: str, kind: str = "text") -> str:
    return f'<pre class="{kind}" tabindex="0">{html.escape(text.rstrip())}</pre>' if text.strip() else ""
