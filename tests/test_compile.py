"""torch.compile under the recipes of the gpu profile: no break, no second graph, and the numbers of the plain form."""

import json
from pathlib import Path

import pytest
from small_training import start

PROGRAM = Path(__file__).with_name("compile_regions.py")


@pytest.fixture(scope="module")
def report():
    """What the program says; fullgraph=True makes a break, and a recompilation, an error there."""
    process = start([PROGRAM])
    said, error = process.communicate()
    assert process.returncode == 0, error[-4000:]
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize(("name", "most"), [("vae", 1), ("sweep", 1), ("nvae", 10)])
def test_rates_warm_up_and_penalty_make_no_further_graph(report, name, most):
    first, last = report[name]["graphs"]
    assert 1 <= first == last <= most  # NVAE: one for each kind and size of its 15 cells
    assert report[name]["breaks"] == 0
    for plain, compiled in report[name]["losses"]:
        assert compiled == pytest.approx(plain, rel=1e-4)
    losses = [plain[0] for plain, _ in report[name]["losses"]]
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("mode", ["norm_act", "cell"])
def test_compiling_what_is_recomputed_changes_no_number(report, mode):
    assert report[mode]["same"]
    assert report[mode]["graphs"] < report[mode]["cells"]  # cells that are alike share one


@pytest.mark.long
def test_without_a_compiler_a_sweep_is_trained_as_it_is(tmp_path):
    losses = {}
    for place in ("works", "lacks"):
        own = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)} | ({"CXX": "/nowhere"} if place == "lacks" else {})
        process = start([PROGRAM.with_name("compile_sweep.py")], **own)
        said, error = process.communicate()
        assert process.returncode == 0, error[-4000:]
        losses[place] = json.loads(said.splitlines()[-1])
    assert not losses["lacks"]["compiled"]
    if not losses["works"]["compiled"]:
        pytest.skip("this machine has no compiler either")
    assert losses["lacks"]["losses"] == pytest.approx(losses["works"]["losses"], rel=1e-3)
