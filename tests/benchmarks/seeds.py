"""The laptop's claims from other seeds, or in fp32: `seeds.py FIRST [PRECISION]` adds a run to `reports/seeds.json`.

What the pages of stages 1 and 2 judge is trained anew, with as many models, from the seed FIRST on. Another kind of
CPU is imitated by the instructions that it has: under `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` torch does
what it does on a processor without AVX-512, where `auto` is fp32.
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
    found = claims.evaluate(pd.concat(frames, ignore_index=True), "laptop")
    tested = [claim for claim in found if claim["verdict"] != "not tested"]
    path = project_root() / "reports" / "seeds.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    run = {"first": first, "precision": precision, "instructions": instructions}
    others = [old for old in runs if any(old.get(name) != value for name, value in run.items())]
    write_json(path, [*others, run | {"provenance": provenance(), "claims": tested}])


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
