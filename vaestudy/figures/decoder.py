"""Decoders that run inside a page: a slider a latent, the image drawn anew as it moves, no network and no kernel."""

import base64
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from vaestudy.figures.draw import png, rgba
from vaestudy.figures.figure import Output, render, statement
from vaestudy.figures.vae import REACH, start_of
from vaestudy.words import fixed, listed, readable

__all__ = ["decoder"]

ACTIVATIONS = {nn.Identity: "linear", nn.ReLU: "relu", nn.Tanh: "tanh"}
LEVELS = 2**15 - 1  # a weight is a whole number of 16 bits times its layer's step
MOST_BYTES = 2_000_000  # of the weights of all models of a page, as text
STEP = 0.05  # of a slider
LEFT_OUT = "No decoder to move by hand stands here: {reason}."


@torch.no_grad()
def decoder(models: Mapping[str, Any], images: Any) -> Output:
    """The decoders of VAEs whose networks are fully connected, to be moved by hand inside of the page.

    All begin with the posterior means of the same image; without scripts, that image stands there. Other networks, and
    those whose weights would take more than two megabytes, are left out with a sentence.
    """
    shown, rows = [], []
    for name, model in models.items():
        layers = _layers(model)
        if layers is None:
            return statement(LEFT_OUT, reason=f"{name} has a decoder that is not fully connected")
        mean, nats, order = start_of(model, images)
        start = (mean.clamp(-REACH, REACH) / STEP).round() * STEP
        values = [round(value, 2) for value in start[0].tolist()]
        latents = [{"latent": f"z{i}", "number": i, "nats": float(nats[i]), "start": values[i]} for i in order]
        weights = {"shape": list(model.shape), "start": values, **_packed(layers, math.prod(model.shape))}
        picture = png(rgba(model.decode([start]))[0])
        shown.append({"name": readable(name), "weights": weights, "latents": latents, "picture": picture})
        rows += [{"model": name, **{key: of[key] for key in ("latent", "nats", "start")}} for of in latents]
    size = sum(len(model["weights"]["weights"]) for model in shown)
    if size > MOST_BYTES:
        return statement(LEFT_OUT, reason=f"the weights of {listed(models)} take {size / 1e6:.1f} MB")
    caption = (
        f"The decoders of {listed(models)}, here on the page: one model each. Move a latent, and its image is drawn "
        "anew. Latents in the order of their nats, from −3 to 3 standard deviations of the prior."
    )
    alt = f"An image of {listed(models)} each, which follows {len(rows)} sliders."
    root = hashlib.sha256(repr(shown).encode()).hexdigest()[:8]
    body = render("decoder", models=shown, root=f"decoder-{root}", reach=REACH, step=STEP, fixed=fixed)
    return Output("decoder", body, caption, alt, rows)


def _layers(model: Any) -> list[tuple[nn.Linear, str]] | None:
    """The layers of a fully connected decoder, each with its activation, the last giving the mean image; else None."""
    known = [part for part in model.decoder if not isinstance(part, nn.Unflatten)]
    linear, between = known[::2], known[1::2]
    if not all(isinstance(part, nn.Linear) for part in linear) or model.config.likelihood == "mixture":
        return None
    activations = [ACTIVATIONS[type(part)] for part in between] + ["sigmoid"]
    return list(zip(linear, activations, strict=True))


def _packed(layers: list[tuple[nn.Linear, str]], values: int) -> dict[str, Any]:
    """Weights and biases as whole numbers of 16 bits, row by row, with each layer's sizes and step.

    Of the last layer only the rows of the image's `values`: variances, where there are any, come after the means.
    """
    about, parts = [], []
    for layer, activation in layers:
        rows = torch.cat([layer.weight, layer.bias[:, None]], dim=1).float().cpu().numpy()
        rows = rows[: values if layer is layers[-1][0] else None]
        step = float(np.abs(rows).max()) / LEVELS or 1.0
        parts.append(np.rint(rows / step).astype("<i2").tobytes())
        sizes = {"inputs": layer.in_features, "outputs": len(rows)}
        about.append({**sizes, "step": step, "activation": activation})
    return {"layers": about, "weights": base64.b64encode(b"".join(parts)).decode()}
