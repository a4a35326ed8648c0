"""Speed of the face renderer: images a second in batches, beside the same renderer given one face at a time."""

import time

import numpy as np
import torch

from vaestudy.data.faces import render, sampled

THREADS = 2


def rows() -> list[dict]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return [compare("full", 64, 800), compare("mild", 64, 800), compare("mild", 32, 2400)]
    finally:
        torch.set_num_threads(before)


def compare(variation: str, size: int, count: int) -> dict:
    index = np.arange(count)
    values = sampled(index)
    render(values[:64], size, variation, identity=index[:64])
    batched, single = [], []
    for _ in range(3):
        start = time.perf_counter()
        render(values, size, variation, identity=index)
        batched.append(time.perf_counter() - start)
        start = time.perf_counter()
        for i in range(64):
            render(values[i : i + 1], size, variation, identity=index[i : i + 1])
        single.append(time.perf_counter() - start)
    value, peer_value = count / min(batched), 64 / min(single)
    return {
        "name": f"faces ({variation}) drawn at {size}x{size}, {THREADS} threads",
        "value": value,
        "unit": "images/s",
        "peer": "the same renderer, one face at a time",
        "peer_value": peer_value,
        "ratio": value / peer_value,
    }


if __name__ == "__main__":
    for line in rows():
        print("{name}: {value:,.4g} {unit}; {peer}: {peer_value:,.4g}; ratio {ratio:.3g}".format(**line))
