"""Executed notebooks in, HTML pages out: self-contained, formulas as MathML, code folded, no script from elsewhere."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

from vaestudy.errors import InputError
from vaestudy.figures import MIME

TEMPLATES = Path(__file__).parent / "templates"

_FUNCTION, _THIN = "<mi>(?:log|ln|exp|min|max|det|tanh|sin|cos)</mi>", '<mspace width="0.17em" />'
# Code comes first, so that a dollar sign inside of it is no formula.
_MATH = re.compile(
    r"(?P<code>(?P<fence>`{3,}|~{3,}).*?(?P=fence)|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|\\\$|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\s](?:[^$]*?[^$\s\\])?)\$",
    re.S,
)


def formula(latex: str, display: str = "inline") -> str:
    """LaTeX as MathML. What the converter does not know stays in it as a backslash or an ampersand."""
    from latex2mathml.converter import convert_to_element

    math = convert_to_element(latex.replace("{aligned}", "{split}"), display=display)
    math.set("alttext", latex.strip())
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
    text = re.sub(r'href="(\w+)\.ipynb"', r'href="\1.html"', text)
    return re.sub("\ue000(\\d+)\ue001", lambda match: formulas[int(match[1])], text)


def shown(output: Any) -> str:
    """One output of a cell as HTML; nothing for what needs a kernel, for warnings and for what the footer shows."""
    if output["output_type"] == "stream":
        return _pre(output["text"]) if output["name"] == "stdout" else ""
    if output["output_type"] == "error":
        return _pre(f"{output['ename']}: {output['evalue']}", "error")
    data = output["data"]
    if "application/vnd.jupyter.widget-view+json" in data or data.get(MIME, {}).get("kind") == "provenance":
        return ""
    if "text/html" in data:
        return data["text/html"]
    if "image/png" in data:
        alt = html.escape(data.get("text/plain", "an image"))
        return f'<img alt="{alt}" src="data:image/png;base64,{data["image/png"].strip()}">'
    return _pre(data.get("text/plain", ""))


def blocks(notebook: Any) -> Iterator[tuple[str, str]]:
    """The notebook as it reads: ("prose" | "code" | "shown", text). Cells that show nothing share one block of code."""
    code = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            code.append(cell.source)
            outputs = "".join(shown(output) for output in cell.outputs)
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
    return [data[MIME] for data in outputs if MIME in data and kind in (None, data[MIME]["kind"])]


def title(notebook: Any) -> str:
    """The notebook's first heading."""
    for cell in notebook.cells:
        found = re.search(r"^# +(.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None
        if found:
            return found[1].strip()
    raise InputError("a notebook of the report needs a first heading: a line '# Title' in a Markdown cell")


def page(notebook: Any, **context: Any) -> str:
    """An executed notebook as a page; `context` is what the template knows beside it."""
    text, _ = _exporter().from_notebook_node(notebook, resources={**context, "title": title(notebook)})
    return text


def cover(**context: Any) -> str:
    """The report's first page."""
    return _exporter().environment.get_template("cover.html.j2").render(resources=context)


def _exporter() -> Any:
    from nbconvert.exporters import TemplateExporter
    from nbconvert.filters import Highlight2HTML

    if not (TEMPLATES / "index.html.j2").is_file():
        raise InputError(f"the report's template is not in {TEMPLATES}: install a clone with pip install -e .")
    return TemplateExporter(
        template_name=TEMPLATES.name,
        extra_template_basedirs=[str(TEMPLATES.parent)],
        file_extension=".html",
        filters={"blocks": blocks, "highlight": Highlight2HTML(pygments_lexer="python")},
    )


def _pre(text: str, kind: str = "text") -> str:
    return f'<pre class="{kind}">{html.escape(text.rstrip())}</pre>' if text.strip() else ""
