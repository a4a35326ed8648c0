"""The answer of a page: its question, sentences that follow from claims and models, and what would change them."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaestudy import words
from vaestudy.errors import InputError
from vaestudy.figures.figure import Output, render

__all__ = ["answer", "answer_html"]

TEXTS = tomllib.loads(Path(__file__).with_name("answers.toml").read_text(encoding="utf-8"))
HEADS, CHANGES, UNTESTED, PAGES = TEXTS.values()
FORMS = {name: forms for page in PAGES.values() for name, forms in page.items() if name != "question"}
CLAIMS = 3  # sentences about claims


def answer(claims: Sequence[Mapping[str, Any]], models: Sequence[str] = (), seen: Sequence[str] = ()) -> Output:
    """The answer of the page that these claims belong to (rows as for `figures.claims`), its parts as its data.

    `models`: those that the page shows, each with its β and how many of its latents are live. `seen`: sentences on what
    models show that no test has judged.
    """
    known = {claim["id"]: claim for claim in claims}
    found = [(known[name], words.known_verdict(known[name])) for name in FORMS if name in known]
    if not found:
        raise InputError("an answer needs the primary claims of a page, as vaestudy.claims.evaluate gives them")
    answered = [pair for pair in found if pair[1] in FORMS[pair[0]["id"]]][:CLAIMS]
    unanswered = [claim["id"] for claim, verdict in found if verdict not in FORMS[claim["id"]]]
    unanswered.sort(key=lambda name: list(map(int, name.split("."))))
    sentences = [*(_sentence(*pair) for pair in answered), *seen]
    if models:
        sentences.append(f"Shown: {words.listed(models)}; a latent of 0.05 nats or more is live.")
    if unanswered:
        sentences.append(f"Not tested here: claim{'' if len(unanswered) == 1 else 's'} {words.listed(unanswered)}.")
    sure, change = words.verdicts(claims), _change(answered, unanswered)
    if seen and not answered:
        sure, change = f"{sure} {UNTESTED['sure']}", [*change, UNTESTED["change"]]
    if any(claim["exploratory"] for claim, _ in found):
        sure += " The run has changed parameters or toy sizes, so that its verdicts are exploratory."
    question = PAGES[found[0][0]["id"].partition(".")[0]]["question"]
    data = {"question": question, "sentences": sentences, "sure": sure, "change": change}
    caption = " ".join(sentences)
    return Output("answer", answer_html(data, *HEADS), caption, f"{question} {caption} {sure}", data)


def answer_html(data: Mapping[str, Any], *parts: str) -> str:
    """Some parts of an answer's data as paragraphs, each with its head."""
    texts = [(HEADS[name], [data[name]] if isinstance(data[name], str) else data[name]) for name in parts]
    return render("answer", paragraphs=texts)


def _sentence(claim: Mapping[str, Any], verdict: str) -> str:
    tested, decidable, interim = words.known_evidence(claim)
    how = f"{words.effect(claim)}; {claim['n']} models a setting"
    how = how if tested else "by the published evidence, not tested here"
    notes = "; ".join([f"claim {claim['id']}", how, *words.reservations(verdict, decidable, interim)])
    return f"{FORMS[claim['id']][verdict]} ({notes})."


def _change(answered: Sequence[tuple[Mapping[str, Any], str]], unanswered: Sequence[str]) -> list[str]:
    """What would change the answer."""
    groups = {"sure": [], "tendency": [], "open": [], "unanswered": list(unanswered)}
    for claim, verdict in answered:
        tested, decidable, _ = words.known_evidence(claim)
        if decidable is not None:
            kind = "open" if verdict == "undecided" else "sure" if decidable else "tendency"
            groups[kind].append(f"{claim['id']} {words.how_sure(claim)}" if kind == "open" and tested else claim["id"])
    join = {"open": "; ".join}
    return [CHANGES[kind].format(join.get(kind, words.listed)(names)) for kind, names in groups.items() if names]
