"""The answer of a page: its question, at most four sentences that follow from claims, and what would change them."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vaestudy import words
from vaestudy.errors import InputError
from vaestudy.figures.figure import Output

__all__ = ["Answer", "answer"]

SENTENCES = 3  # about claims; a fourth says what was not tested
QUESTIONS = {
    "1": "Can a network learn from images alone what made them and how to make them, and what does the "
    "reparameterised gradient buy?",
    "2": "Does one number, the weight β on the KL term, make each latent stand for one cause, and how would anybody "
    "know?",
    "3": "Does β > 1 disentangle a hierarchy of latents too, and in which of its groups?",
}
# What a page says of a claim that is supported, contradicted or undecided, the most telling claims of a page first.
FORMS = {
    "1.1": (
        "The reparameterised gradient varies at least ten times less than the score function's",
        "The reparameterised gradient varies less than ten times less than the score function's",
        "Whether the reparameterised gradient varies ten times less than the score function's stays open",
    ),
    "1.4": (
        "Latents that a VAE does not need switch off: of 50 as many live as of 20, within one",
        "A VAE of 50 latents keeps more of them alive than one of 20",
        "Whether superfluous latents switch off stays open",
    ),
    "1.5": (
        "Uncorrelated is not disentangled: the VAE's codes score above random rotations of themselves",
        "The VAE's codes score below random rotations of themselves",
        "Whether the VAE's axes mean more than random rotations of them stays open",
    ),
    "1.2": (
        "One noise sample an image is enough at batches of 100",
        "At batches of 100, one noise sample an image costs more than a nat",
        "Whether one noise sample an image is enough at batches of 100 stays open",
    ),
    "1.3": (
        "Superfluous latents do not overfit, within a nat",
        "Superfluous latents overfit by more than a nat",
        "Whether superfluous latents overfit stays open",
    ),
    "2.1": (
        "With its β chosen among those above 1 by the mean score, the choice being part of the test, a β-VAE is more "
        "disentangled than the VAE",
        "The best β above 1 disentangles less than β = 1",
        "Whether the best β above 1, chosen by the mean score and tested with that choice, disentangles better than "
        "β = 1 stays open",
    ),
    "2.5": (
        "The chosen β-VAE scores above PCA of the pixels",
        "The chosen β-VAE scores below PCA of the pixels",
        "Whether the chosen β-VAE scores above PCA of the pixels stays open",
    ),
    "2.2": (
        "Beyond the best β the score falls again",
        "Beyond the best β the score does not fall: it rises",
        "Whether the score falls again beyond the best β stays open",
    ),
    "2.3": (
        "Judged by the mutual information gap, too, the best β above 1 disentangles better",
        "Judged by the mutual information gap, the best β above 1 disentangles less",
        "Judged by the mutual information gap, too, the gain stays open",
    ),
    "2.4": (
        "The mutual information gap falls again beyond its best β",
        "The mutual information gap rises beyond the β that is best below it",
        "Whether the mutual information gap falls again stays open",
    ),
    "3.2": (
        "Where the lower groups are charged more while training begins, pressure moves the code to the top group",
        "Where the lower groups are charged more while training begins, pressure moves the code away from the top "
        "group",
        "Whether pressure moves the code to the top group, the lower ones charged more at first, stays open",
    ),
    "3.3": (
        "The top group is then disentangled and not only filled: it scores above random rotations of itself",
        "The top group is then filled and not disentangled: it scores no better than random rotations of itself",
        "Whether the top group is then disentangled or only filled stays open",
    ),
    "3.4": (
        "It disentangles as well as a flat code of the same rate, within 0.05",
        "It disentangles less than a flat code of the same rate",
        "Whether it disentangles as well as a flat code of the same rate stays open",
    ),
    "3.1": (
        "At β = 1 the hierarchy has a better bound than one group",
        "At β = 1 the hierarchy has a worse bound than one group",
        "Whether the hierarchy has the better bound at β = 1 stays open",
    ),
    "3.5": (
        "All groups together are read best below β = 1",
        "All groups together are read better above β = 1",
        "At which β all groups together are read best stays open",
    ),
}
PLACES = ("supported", "contradicted", "undecided")


@dataclass(frozen=True, eq=False)
class Answer(Output):
    """A page's question, answered; `data` holds the parts: question, sentences, sure and change."""

    caption: str
    alt: str
    data: dict[str, Any]
    kind: ClassVar[str] = "answer"

    def _repr_html_(self) -> str:
        parts = (("The question.", "question"), ("The answer.", "sentences"), ("How sure.", "sure"))
        return self.paragraphs((*parts, ("What would change it.", "change")))

    def opening(self) -> str:
        """The answer without the question, which stands above it where a page opens."""
        return self.paragraphs((("The answer.", "sentences"), ("How sure.", "sure")))

    def paragraphs(self, parts: Sequence[tuple[str, str]]) -> str:
        said = [(head, self.data[name]) for head, name in parts]
        texts = [(head, text if isinstance(text, str) else " ".join(text)) for head, text in said]
        return '<div class="answer">' + "".join(f"<p><b>{h}</b> {html.escape(t)}</p>" for h, t in texts) + "</div>"


def answer(claims: Sequence[Mapping[str, Any]]) -> Answer:
    """The answer of the page that these claims belong to (rows as for `figures.claims`)."""
    known = {claim["id"]: claim for claim in claims}
    found = [(known[name], _verdict(known[name])) for name in FORMS if name in known]
    if not found:
        raise InputError("an answer needs the primary claims of a page, as vaestudy.claims.evaluate gives them")
    told = [pair for pair in found if pair[1] in PLACES][:SENTENCES]
    sentences = [_sentence(*pair) for pair in told]
    rest = [claim["id"] for claim, verdict in found if verdict not in PLACES]
    if rest:
        is_one = len(rest) == 1
        sentences.append(f"Not tested here: {'claim' if is_one else 'claims'} {words.listed(rest)}.")
    sure = words.verdicts(claims)
    if any(claim["exploratory"] for claim, _ in found):
        sure += " The run has changed parameters or toy sizes, so that its verdicts are exploratory."
    question = QUESTIONS[found[0][0]["id"].partition(".")[0]]
    data = {"question": question, "sentences": sentences, "sure": sure, "change": _change(told, rest)}
    return Answer(" ".join(sentences), f"{question} {' '.join(sentences)} {sure}", data)


def _verdict(claim: Mapping[str, Any]) -> str:
    """The verdict of this run or, where it did not test, that of the published evidence."""
    return (claim.get("published") or "") if claim["verdict"] == "not tested" else claim["verdict"]


def _sentence(claim: Mapping[str, Any], verdict: str) -> str:
    about = [f"claim {claim['id']}"]
    if claim["verdict"] == "not tested":
        about.append("by the published evidence: not tested in this run")
    else:
        about += [words.effect(claim), f"{claim['n']} models a setting"]
        about += ["a tendency"] if verdict != "undecided" and not claim["decidable"] else []
    return f"{FORMS[claim['id']][PLACES.index(verdict)]} ({'; '.join(about)})."


def _change(told: Sequence[tuple[Mapping[str, Any], str]], rest: Sequence[str]) -> list[str]:
    """What would change the answer: for sure verdicts, tendencies, open ones and those not tested."""
    own = [(claim, verdict) for claim, verdict in told if claim["verdict"] != "not tested"]
    sure = [claim["id"] for claim, _ in own if claim["decidable"]]
    tendency = [c["id"] for c, verdict in own if verdict != "undecided" and not c["decidable"]]
    open_ = [f"{c['id']} {words.how_sure(c)}" for c, verdict in own if verdict == "undecided" and not c["decidable"]]
    lines = {
        "More seeds or another machine would not change {}; other data, another network or another score may.": sure,
        "More models may turn {}, which is a tendency.": tendency,
        "More models could decide what is open: {}.": ["; ".join(open_)] if open_ else [],
        "The night profile trains the models for {}.": rest,
    }
    return [line.format(words.listed(names)) for line, names in lines.items() if names]
