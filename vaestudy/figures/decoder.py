"""Decoders that run inside a page: a slider a latent, the image drawn anew as it moves, no network and no kernel."""

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from vaestudy.figures.draw import png, rgba
from vaestudy.figures.figure import Captioned, Statement
from vaestudy.figures.vae import REACH, nats_by_latent
from vaestudy.words import fixed, listed, readable

__all__ = ["Decoder", "decoder"]

SCRIPT = Path(__file__).with_name("decoder.js")
ACTIVATIONS = {nn.Identity: "linear", nn.ReLU: "relu", nn.Tanh: "tanh"}
LEVELS = 2**15 - 1  # a weight is a whole number of 16 bits times its layer's step
MOST_BYTES = 2_000_000  # of the weights of all models of a page, as text
STEP = 0.05  # of a slider


@dataclass(frozen=True, eq=False)
class Decoder(Captioned):
    """The decoders of some models side by side; without scripts, the image that each of them opens with.

    Attributes:
        models: by name, what the script reads: shape, start, layers and weights.
        order: by name, the latents with their nats, those that carry most first.
        pictures: by name, the address of the first image.
    """

    models: Mapping[str, dict]
    order: Mapping[str, Mapping[int, float]]
    pictures: Mapping[str, str]
    caption: str
    alt: str
    data: Any
    kind: ClassVar[str] = "decoder"

    def body(self) -> str:
        text = "".join(self._model(name) for name in self.models)
        root = f"decoder-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        script = SCRIPT.read_text(encoding="utf-8").replace("ROOT", root)
        no_script = "<noscript><p>Where scripts are off, the images stay as they are.</p></noscript>"
        place = 'style="display:flex;flex-wrap:wrap;gap:2rem;justify-content:center"'
        return f'<div id="{root}" {place}>{text}</div>{no_script}<script>{script}</script>'

    def _model(self, name: str) -> str:
        shown, start = html.escape(name), self.models[name]["start"]
        sliders = "".join(
            f'<label style="display:flex;gap:.5em;align-items:center"><span style="width:8.5em">z{i}: {fixed(nats, 2)} '
            f'nats</span><input type="range" min="-{REACH}" max="{REACH}" step="{STEP}" value="{start[i]:g}" '
            f'data-latent="{i}" aria-label="{shown}, latent z{i}" disabled style="flex:1;min-width:6rem">'
            f'<output style="width:2.6em">{fixed(start[i], 1)}</output></label>'
            for i, nats in self.order[name].items()
        )
        _, height, width = self.models[name]["shape"]
        look = f"width:min(12rem,100%);aspect-ratio:{width}/{height};image-rendering:pixelated"
        return (
            f'<div class="model" style="flex:1 1 15rem;max-width:22rem"><p><b>{shown}</b></p>'
            f'<img alt="What {shown} makes of its latents" style="{look}" src="{self.pictures[name]}">'
            f'<div class="controls">{sliders}<button type="button" disabled>Back to the start</button></div>'
            f'<script type="application/json">{json.dumps(self.models[name])}</script></div>'
        )


@torch.no_grad()
def decoder(models: Mapping[str, Any], images: Any) -> Decoder | Statement:
    """The decoders of VAEs whose networks are fully connected, to be moved by hand inside of the page.

    All begin with the posterior means of the same image. Other networks, and those whose weights would take more than
    two megabytes, are left out with a sentence.
    """
    x = images.batch([len(images) // 2])
    found, order, pictures = {}, {}, {}
    for name, model in models.items():
        layers = _layers(model)
        if layers is None:
            return _left_out(f"{name} has a decoder that is not fully connected")
        (mean,) = model.encode(x.to(next(model.parameters()).device))
        start = (mean.clamp(-REACH, REACH) / STEP).round() * STEP
        nats = nats_by_latent(model, images)
        order[name] = {int(i): float(nats[i]) for i in np.argsort(-nats, kind="stable")}
        pictures[name] = png(rgba(model.decode([start]))[0])
        found[name] = {
            "shape": list(model.shape),
            "start": [round(v, 2) for v in start[0].tolist()],
            **_packed(layers, math.prod(model.shape)),
        }
    size = sum(len(model["weights"]) for model in found.values())
    if size > MOST_BYTES:
        return _left_out(f"the weights of {listed(found)} take {size / 1e6:.1f} MB")
    caption = (
        f"The decoders of {listed(models)}, here on the page: one model each. Move a latent, and its image is drawn "
        "anew. Latents in the order of their nats, from −3 to 3 standard deviations of the prior."
    )
    data = [
        {"model": name, "latent": f"z{i}", "nats": nats, "start": found[name]["start"][i]}
        for name, of in order.items()
        for i, nats in of.items()
    ]
    alt = f"An image of {listed(models)} each, which follows {sum(map(len, order.values()))} sliders."
    named = [{readable(name): value for name, value in of.items()} for of in (found, order, pictures)]
    return Decoder(*named, caption, alt, data)


def _layers(model: Any) -> list[tuple[nn.Linear, str]] | None:
    """The layers of a fully connected decoder, each with its activation, the last giving the mean image; else None."""
    known = [part for part in model.decoder if not isinstance(part, nn.Unflatten)]
    linear, between = known[::2], known[1::2]
    if not all(isinstance(part, nn.Linear) for part in linear) or model.config.likelihood == "mixture":
        return None
    activations = [ACTIVATIONS[type(part)] for part in between] + ["sigmoid"]
    return list(zip(linear, activations, strict=True))


def _packed(layers: list[tuple[nn.Linear, str]], values: int) -> dict[str, Any]:
    """Weights and biases as whole numbers of 16 bits, row by row, with each layer's sizes and steps.

    Of the last layer only the rows of the image's `values`: variances, where there are any, come after the means.
    """
    about, parts = [], []
    for layer, activation in layers:
        kept = slice(values if layer is layers[-1][0] else None)
        weights, biases = (tensor.detach().float().cpu().numpy()[kept] for tensor in (layer.weight, layer.bias))
        steps = [float(np.abs(values).max()) / LEVELS or 1.0 for values in (weights, biases)]
        rows = np.concatenate([weights / steps[0], biases[:, None] / steps[1]], axis=1)
        parts.append(np.rint(rows).astype("<i2").tobytes())
        sizes = {"inputs": layer.in_features, "outputs": len(biases)}
        about.append({**sizes, "steps": steps, "activation": activation})
    return {"layers": about, "weights": base64.b64encode(b"".join(parts)).decode()}


def _left_out(reason: str) -> Statement:
    text = f"No decoder to move by hand stands here: {reason}."
    return Statement(text, text, {"models": 0})
