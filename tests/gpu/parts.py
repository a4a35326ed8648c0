"""Tests, equalities, speeds and trainings on a GPU, each part a process of its own that leaves a JSON file.

A part that is done is not done again; one that ran out of time goes on with the next call. Needs torch and what the
library needs to train and to score; pytest for the part `tests` alone, and neither a network nor Jupyter.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from gpu_recipes import MAKERS, bytes_of_noise, hierarchy

from vaestudy import profiles
from vaestudy.files import write_json
from vaestudy.models import NVAE, VAE, NVAEConfig
from vaestudy.training import cost
from vaestudy.training.provenance import device_name, provenance
from vaestudy.training.steps import ModelStep, StackStep

ROOT = Path(__file__).parents[2]
OUT, STATE = Path(os.environ["OUT"]), Path(os.environ["STATE"])
SMOKE, BUDGET = os.environ["SIZE"] == "smoke", float(os.environ["BUDGET"])
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
STEPS, LEAST = 20, 20.0  # steps whose losses are compared; seconds under which no part is begun


def tests() -> dict:
    """The tests that need a CUDA device; without pytest, `equality` says what they would."""
    files = [str(path) for path in (ROOT / "tests").glob("test_*.py") if "pytest.mark.cuda" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-m", "cuda", "-q", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""])[-1]
    ran = DEVICE.type == "cpu" or "passed" in last
    return {"status": done.returncode, "said": last, "output": done.stdout[-6000:], "ok": done.returncode == 0 and ran}


def equality() -> dict:
    """Losses of the CPU and of the device from the same noise, and of ordinary and of captured steps."""
    torch.backends.cudnn.allow_tf32 = False
    found = {}
    for name, make in MAKERS.items():
        with noise_of_the_cpu():
            here, there = (losses(ordinary(make(device, precision="fp32"))) for device in ("cpu", DEVICE.type))
        alone, captured = losses(ordinary(make(DEVICE.type))), losses(make(DEVICE.type))
        found[f"{name}: CPU and device"] = distance(here, there)
        found[f"{name}: ordinary and captured"] = distance(alone, captured)
    return {"largest relative differences": found, "ok": max(found.values()) < 1e-2}


def losses(step) -> torch.Tensor:
    return torch.stack([step(number, number / STEPS)[:, 0].cpu() for number in range(STEPS)])


def distance(here: torch.Tensor, there: torch.Tensor) -> float:
    return float(((here - there).abs() / here.abs()).max())


def ordinary(step):
    """The step without a CUDA graph."""
    step.gradients.allowed = False
    return step


@contextlib.contextmanager
def noise_of_the_cpu() -> Iterator[None]:
    """Random numbers are drawn on the CPU, whatever device they are for."""
    kept = {name: getattr(torch, name) for name in ("rand", "randn", "Generator")}
    normal = torch.Tensor.normal_

    def drawn(make: Callable) -> Callable:
        return lambda *shape, device=None, **options: make(*shape, **options).to(device or "cpu")

    torch.rand, torch.randn = drawn(kept["rand"]), drawn(kept["randn"])
    torch.Generator = type("Generator", (), {"__new__": lambda cls, device=None: kept["Generator"]()})
    torch.Tensor.normal_ = lambda own, **options: own.copy_(normal(torch.empty(own.shape), **options))
    try:
        yield
    finally:
        torch.Tensor.normal_ = normal
        for name, own in kept.items():
            setattr(torch, name, own)


def celeba64() -> dict:
    """Images a second, memory and first step of the published celeba64 network, in its forms, the plain one first."""
    forms = {"plain": ("none", False, False), "recomputing": ("norm_act", False, False)}
    forms |= {"captured": ("norm_act", False, True), "compiled and captured": ("norm_act", True, True)}
    rows, counts, peak = {}, {}, cost.measured(DEVICE, halved=DEVICE.type == "cuda")
    for name, (checkpoint, compiled, captured) in forms.items():
        model = hierarchy(checkpoint=checkpoint)
        if not SMOKE:
            model = NVAE(NVAEConfig.preset("celeba64", checkpoint=checkpoint))
        batch = 4 if SMOKE else 64
        recipe = profiles.sizes("nvae", "gpu")["training"]
        recipe = replace(recipe, batch=batch, compile=compiled and not SMOKE, precision="auto")
        counted = counts[checkpoint] = counts.get(checkpoint) or cost.cost(model, recipe, 10 * batch)
        step = ModelStep(model.to(DEVICE), bytes_of_noise(model.shape, 10 * batch).to(DEVICE), recipe, DEVICE)
        rows[name] = timed(step if captured else ordinary(step), batch, 2 if SMOKE else 20)
        rows[name]["share of the matrix peak"] = counted.flops / batch * rows[name]["images_per_second"] / peak.flops
        rows[name]["estimated images_per_second"] = batch / counted.step_seconds(peak, halved=True)
        write(Path("celeba64.json"), {"rows": rows, "peak_flops": peak.flops, "peak_bytes": peak.bytes})
        del step, model
    return {"rows": rows, "peak_flops": peak.flops, "peak_bytes": peak.bytes, "ok": True}


def timed(step, images: int, steps: int) -> dict:
    """First step, then the rate of those after recording, and the highest use of memory."""
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = now()
    step(0, 0.0)
    first = now() - began
    for number in range(1, 6):
        step(number, 0.1)
    began = now()
    for number in range(6, 6 + steps):
        step(number, 0.1)
    rate = steps * images / (now() - began)
    most = torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else None
    return {"images_per_second": rate, "first_step_seconds": first, "peak_memory_gib": most}


def now() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def sweep() -> dict:
    """64 β-VAEs as one program, ordinary, captured and compiled, against one of them alone: model-images a second."""
    models, width, batch = (4, 16, 8) if SMOKE else (64, 512, 256)
    images = bytes_of_noise((1, 16, 16) if SMOKE else (1, 64, 64), 20 * batch).to(DEVICE)
    base = replace(profiles.sizes("beta_vae", "gpu")["training"], batch=batch)
    recipes = [replace(base, seed=seed, objective=replace(base.objective, beta=1.0 + seed)) for seed in range(models)]
    rows = {}
    for name in ("one alone", "at once", "at once, captured", "at once, captured and compiled"):
        chosen = [replace(own, compile="compiled" in name and not SMOKE) for own in recipes]
        members = [VAE(images.shape, width=width, seed=own.seed).to(DEVICE) for own in chosen]
        if name == "one alone":
            step, count = ModelStep(members[0], images, chosen[0], DEVICE), batch
        else:
            step, count = StackStep(members, chosen, images, DEVICE), models * batch
        rows[name] = timed(step if "captured" in name else ordinary(step), count, 5 if SMOKE else 200)
        write(Path("sweep.json"), {"models": models, "rows": rows})
    best = max(row["images_per_second"] for row in rows.values())
    return {"models": models, "rows": rows, "times": best / rows["one alone"]["images_per_second"], "ok": True}


def stage(name: str) -> dict:
    """A stage of the profile, trained and scored by the command line; what is trained is found again."""
    command = [sys.executable, "-m", "vaestudy", "train", name, "--runs_dir", str(STATE / "runs")]
    done = subprocess.run(
        [*command, "--profile", "smoke" if SMOKE else "gpu"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    paths = sorted((STATE / "runs").glob(f"{name}-*/record.json"))
    records = [json.loads(path.read_text()) | {"run": path.parent.name} for path in paths]
    return {"status": done.returncode, "error": done.stderr[-4000:], "records": records, "ok": done.returncode == 0}


PARTS = {own.__name__: own for own in (equality, tests, celeba64, sweep)}
PARTS |= {name: partial(stage, name) for name in ("vae", "nvae", "beta_vae")}


def write(name: Path, content: dict) -> None:
    """Into the state and, at once, where it is looked for."""
    write_json(STATE / "parts" / name, content)
    OUT.mkdir(parents=True, exist_ok=True)
    shutil.copy(STATE / "parts" / name, OUT / name)


def run(name: str) -> None:
    """One part, in this process."""
    began = time.perf_counter()
    found = PARTS[name]()
    about = provenance(device=device_name(DEVICE))
    write(Path(f"{name}.json"), {"part": name, "seconds": time.perf_counter() - began, "about": about, **found})


def finished(name: str) -> bool:
    path = STATE / "parts" / f"{name}.json"
    return path.exists() and json.loads(path.read_text()).get("ok", False)


def main(words: list[str]) -> int:
    if words[:1] == ["--one"]:
        run(words[1])
        return 0
    end, status = time.perf_counter() + BUDGET, 0
    for name in words or PARTS:
        left = end - time.perf_counter()
        if finished(name):
            write(Path(f"{name}.json"), json.loads((STATE / "parts" / f"{name}.json").read_text()))
            print(f"{name}: done before", flush=True)
            continue
        if left < LEAST:
            print(f"{name}: no time left, call again", flush=True)
            status = 3
            continue
        status = max(status, started(name, left))
    return status


def started(name: str, left: float) -> int:
    """One part in a process of its own, which is asked to stop when its time is over."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, __file__, "--one", name], stdout=said, stderr=said, text=True)
        try:
            code = process.wait(left - 10)
        except subprocess.TimeoutExpired:
            stop(process)
            code = None
        said.seek(0)
        output = said.read()[-6000:]
    seconds = time.perf_counter() - began
    if code == 0 and finished(name):
        for folder in (OUT, STATE / "parts"):
            (folder / f"{name}.failed.json").unlink(missing_ok=True)
        print(f"{name}: {seconds:.1f} s", flush=True)
        return 0
    word = "stopped for want of time, call again" if code is None else f"failed with status {code}"
    print(f"{name}: {word} after {seconds:.1f} s\n{output}", flush=True)
    write(Path(f"{name}.failed.json"), {"part": name, "seconds": seconds, "status": code, "output": output})
    return 3 if code is None else 1


def stop(process: subprocess.Popen) -> None:
    """Ask the trainings that the part has started, then the part, to leave their checkpoints and end."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    for child in re.findall(r"\d+", listed.stdout):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), 15)
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
