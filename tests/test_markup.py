"""Names from file names, labels and tables are data in every figure: no element, no attribute, no formula of theirs."""

from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from vaestudy import experiments, figures
from vaestudy.data import Factors, ImageSet
from vaestudy.data.labels import read_labels
from vaestudy.models import VAE

pytestmark = pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # for names as long as these
BAD = '<script>alert(1)</script>"onload="alert(2)" \'$\\frac{$ ]]> --> &amp; {x}'
OTHER = BAD + " too"


class Elements(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = set(), {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, text):
        self.text += text


def image_set(count=40):
    storage = torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8)
    table = np.random.default_rng(0).integers(0, 3, (count, 2))
    return ImageSet(BAD, (1, 16, 16), storage, factors_of_rows=Factors((BAD, OTHER), (3, 3), table))


def history():
    columns = ("images_seen", "elbo_nats", "nll_nats", "kl_nats")
    return SimpleNamespace(history={name: np.arange(1.0, 5.0) for name in columns})


CODES = np.random.default_rng(0).normal(size=(40, 2))
FIGURES = {
    "information": lambda: figures.information({BAD: np.array([[0.9, 0.1], [0.2, 0.8]])}, (BAD, OTHER)),
    "latent responses": lambda: figures.latent_responses(
        CODES, np.random.default_rng(0).integers(0, 3, (40, 4)), [0, 1], (BAD, OTHER, "c", "d")
    ),
    "factors over beta": lambda: figures.factors_over_beta(
        pd.DataFrame({BAD: [0.9, 0.1], OTHER: [0.8, 0.7]}, index=[1.0, 4.0])
    ),
    "correlations": lambda: figures.correlations({BAD: np.eye(3), "b": np.eye(3)}, {BAD: 0.5, "b": 0.1}, BAD),
    "training curves": lambda: figures.training_curves({BAD: history(), "b": history()}),
    "reconstructions": lambda: figures.reconstructions(VAE((1, 16, 16), latent_dim=2), image_set(), count=3),
    "table of factors": lambda: figures.table(experiments.vae.factors_table(image_set()), BAD),
    "statement": lambda: figures.statement("{name}", name=BAD),
    "provenance": lambda: figures.provenance([{"run": BAD, "data": {BAD: BAD}}, {"run": "b", "data": {BAD: BAD}}]),
    "title and labels": lambda: own_figure(),
}


def own_figure():
    with figures.style():
        fig, ax = figures.canvas()
        ax.plot([1, 2], label=BAD)
        ax.set(title=BAD, xlabel=BAD, ylabel=BAD)
        ax.legend()
        ax.text(1, 1, BAD)
    return figures.Figure(fig, BAD, BAD, {})


@pytest.mark.parametrize("name", FIGURES)
def test_markup_in_names_is_text_in_every_figure(name):
    found = Elements(FIGURES[name]()._repr_html_())
    assert "script" not in found.tags
    assert "onload" not in found.attributes
    if name not in ("reconstructions",):  # names no factor
        shown = found.text + " ".join(map(str, found.attributes.values()))
        assert "<script>alert(1)</script>" in shown
        assert "$\\frac{$" in shown


def test_markup_in_labels_and_file_names_stays_text(tmp_path):
    file, bad = '<img src=x onerror="alert(1)">.png', '<script>$\\frac{$&"b"'
    rows = [["file", bad, "b"], [file, "1", "2"], ["b.png", "2", "1"]]
    pd.DataFrame(rows[1:], columns=rows[0]).to_csv(tmp_path / "labels.csv", index=False)
    factors, _ = read_labels(tmp_path, [file, "b.png"])
    assert factors.names == (bad, "b")
    assert factors.values(slice(None)).tolist() == [[0, 1], [1, 0]]
