"""All benchmarks as one table of ratios, each with its peer or its limit: `make bench`, or `run.py NAME ...`."""

import importlib
import sys
import time
from pathlib import Path

import torch

from vaestudy import figures, project_root
from vaestudy.files import write_json
from vaestudy.training.provenance import device_name, provenance

HERE = Path(__file__).parent


def main(wanted: list[str]) -> None:
    sys.path.insert(0, str(HERE))
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    rows = []
    for name in names:
        if wanted and name.removeprefix("bench_") not in wanted:
            continue
        start = time.perf_counter()
        print(f"{name} ...", end=" ", flush=True)
        rows += [{"benchmark": name.removeprefix("bench_"), **row} for row in importlib.import_module(name).rows()]
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    shown = [{key: row.get(key) for key in ("name", "value", "unit", "peer", "peer_value", "ratio")} for row in rows]
    print(figures.table(shown, "Ours, the peer or limit, and their ratio, all measured in this run."))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = {"provenance": provenance(device=device_name(device)), "rows": rows}
    path = project_root() / "reports" / f"bench-{device.type}.json"
    write_json(path, result)
    print(f"\n{path}")


if __name__ == "__main__":
    main(sys.argv[1:])
