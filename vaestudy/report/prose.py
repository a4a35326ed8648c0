"""The Markdown of a notebook as HTML: formulas as MathML, links to pages, tables and code that the keyboard reaches."""

import re
from xml.etree.ElementTree import tostring

from latex2mathml.converter import convert_to_element
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

_FUNCTION, _THIN = "<mi>(?:log|ln|exp|min|max|det|tanh|sin|cos)</mi>", '<mspace width="0.17em" />'
# A table row or a fence of code; and in a row a formula, or what is none.
_ROW = re.compile(r"(?s:(?P<fence>`{3,}|~{3,}).*?(?P=fence))|^ {0,3}\|.*$", re.M)
_INLINE = re.compile(r"`[^`]*`|\\\$|\$[^$\s](?:[^$]*?[^$\s\\])?\$")


def formula(latex: str, display: str = "inline") -> str:
    """LaTeX as MathML. What the converter does not know stays in it as a backslash or an ampersand."""
    math = convert_to_element(latex.replace("{aligned}", "{split}"), display=display)
    math.set("alttext", latex.strip())
    if display == "block":
        math.set("tabindex", "0")  # on a phone it scrolls
    text = tostring(math, encoding="unicode").replace("&amp;#x", "&#x")
    # Browsers set no space around the name of a function, TeX does.
    text = re.sub(rf"({_FUNCTION})(?=<m(?!o|row><mo))", rf"\1{_THIN}", text)
    return re.sub(rf"(</m(?:[in]|sub|sup|subsup|frac|style|row)>)(?={_FUNCTION})", rf"\1{_THIN}", text)


class _Prose(IPythonRenderer):
    """nbconvert's Markdown with formulas as MathML and links to notebooks as links to their pages."""

    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_math(self, body: str) -> str:
        return formula(body, "block")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, re.sub(r"^(\w+)\.ipynb$", r"\1.html", url), title)


def prose(source: str) -> str:
    """Markdown as HTML, its tables and code in regions that the keyboard reaches."""
    text = MarkdownWithMath(_Prose(escape=False, exclude_anchor_links=True)).render(_ROW.sub(_barless, source))
    text = re.sub(r"<th[^>]*></th>", "<td></td>", text)  # a header without words says nothing to a screen reader
    text = text.replace("<table>", '<div class="scroll" tabindex="0" role="group" aria-label="table"><table>')
    return text.replace("</table>", "</table></div>").replace("<pre>", '<pre tabindex="0">')


def _barless(row: re.Match) -> str:
    """A row of a table without bars in its formulas, where they would end a cell."""

    def barless(part: re.Match) -> str:
        return re.sub(r"(?<!\\)\|", r"\\vert ", part[0]) if part[0].startswith("$") else part[0]

    return row[0] if row["fence"] else _INLINE.sub(barless, row[0])
