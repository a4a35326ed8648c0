"""The claims from other seeds, or in fp32.

`seeds.py FIRST [PRECISION]` adds a run to `reports/seeds.json`: what the laptop's pages of stages 1 and 2 judge is
trained anew, with as many models, from the seed FIRST on. Another kind of CPU is imitated by the instructions that it
has: under `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` torch does what it does on a processor without AVX-512,
where `auto` is fp32.

`seeds.py hierarchy` writes `reports/seeds-hierarchy.json`: whether the groups of a hierarchy are disentangled, claims
3.3, 3.8 and 3.9, by the models of 20 new seeds at the two β that they compare, twice as many as the night has. Seeds
and their number were fixed before the first of these models was trained. About 45 minutes of two cores; the same
command goes on where it was stopped.
"""

import json
import sys
from dataclasses import replace

import pandas as pd
import torch

from vaestudy import claims, project_root
from vaestudy.experiments import evidence
from vaestudy.experiments.common import seeds_from
from vaestudy.files import write_json
from vaestudy.training.provenance import provenance

PARTS = {"vae": ("gradients",), "beta_vae": ("sweep32", "spectra")}
COMPARED = {"betas": (1.0, 16.0), "schedules": ("top_first",), "flat_betas": ()}  # by the claims on groups
NEW, PIECE = range(100, 120), 2


def main(first: int, precision: str = "auto") -> None:
    instructions = torch.backends.cpu.get_cpu_capability()
    folder, frames = project_root() / "runs" / f"seeds-{first}-{precision}-{instructions}", []
    for stage, names in PARTS.items():
        for name in names:
            sizes = evidence.plan(stage, "laptop")[name]
            sizes |= {"training": replace(sizes["training"], precision=precision)}
            seeds = seeds_from(first, sizes["seeds"])
            context = evidence.Context(sizes, None, folder, seeds)
            frames.append(evidence.run_piece(evidence.PARTS[name], context, seeds, "laptop", folder))
    path = project_root() / "reports" / "seeds.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    run = {"first": first, "precision": precision, "instructions": instructions}
    others = [old for old in runs if any(old.get(name) != value for name, value in run.items())]
    write_json(path, [*others, run | judged(frames, "laptop")])


def hierarchy() -> None:
    folder, frames = project_root() / "runs" / "seeds-hierarchy", []
    context = evidence.Context(evidence.plan("nvae", "night")["hierarchy"] | COMPARED, None, folder / "runs")
    for first in NEW[::PIECE]:
        seeds = range(first, first + PIECE)
        frames.append(evidence.run_piece(evidence.PARTS["hierarchy"], context, seeds, f"{first}", folder))
        print(f"seeds {first} to {seeds[-1]} of {NEW[0]} to {NEW[-1]}", flush=True)
    write_json(project_root() / "reports" / "seeds-hierarchy.json", {"first": NEW[0], **judged(frames, "night")})


def judged(frames: list[pd.DataFrame], profile: str) -> dict:
    """The claims that these records can test, and what tested them."""
    found = claims.evaluate(pd.concat(frames, ignore_index=True), profile)
    return {"provenance": provenance(), "claims": [claim for claim in found if claim["verdict"] != "not tested"]}


if __name__ == "__main__":
    if sys.argv[1] == "hierarchy":
        hierarchy()
    else:
        main(int(sys.argv[1]), *sys.argv[2:])
