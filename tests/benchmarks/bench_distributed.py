"""Scaling over processes: images a second of each, training one NVAE together, against one process alone."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SCRIPT = """
import json, sys
import torch
from vaestudy.data import ImageSet
from vaestudy.models import NVAE, NVAEConfig
from vaestudy.training import Training, distributed, fit

processes, steps, batch = int(sys.argv[2]), 24, 16
torch.set_num_threads(1)
distributed.start()
images = ImageSet("noise", (3, 32, 32), torch.randint(0, 256, (512, 3, 32, 32), dtype=torch.uint8))
recipe = Training(
    images=steps * batch * processes, batch=batch * processes, micro_batches=processes, log_every=6 * batch * processes,
    optimizer="adamax", compile=torch.cuda.is_available(),
)
run = fit(NVAE(NVAEConfig(groups=(2, 4))), images, recipe, sys.argv[1])
if distributed.rank() == 0:
    print(json.dumps(6 * batch * processes / float(run.history["seconds"].diff().min())))
"""


def rows() -> list[dict]:
    """Each process has a part of 16 images, so that twice the processes do twice the work in a step."""
    count = torch.cuda.device_count() or os.cpu_count() or 1
    about = {"name": f"NVAE step on {count} processes", "unit": "images/s a process"}
    if count == 1:
        return [about | {"value": None, "peer": "needs a second device or core", "peer_value": None, "ratio": None}]
    alone, together = images_per_second(1), images_per_second(count) / count
    return [about | {"value": together, "peer": "one process", "peer_value": alone, "ratio": together / alone}]


def images_per_second(processes: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        script.write_text(SCRIPT)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *launcher, str(script), f"{folder}/run", str(processes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])
