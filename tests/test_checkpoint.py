"""Checkpoints: two at most, none at the end, and a damaged one costs a step, not the training."""

import re

import pytest
import torch
from small_training import (
    SHAPE,
    STEPS,
    Interrupted,
    assert_same,
    assert_same_history,
    fit,
    interrupt_after,
    noise,
    small,
)

from vaestudy.errors import InputError
from vaestudy.models import VAE
from vaestudy.training import Run, checkpoint

NAME = re.compile(r"checkpoint-(\d{12})-[0-9a-f]{16}\.pt")


def model():
    return VAE(SHAPE, latent_dim=3, network="kingma", width=16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(model(), noise(), small(), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def stopped(tmp_path):
    """The folder of a training that has written a checkpoint after each of its six steps."""
    with pytest.raises(Interrupted):
        fit(model(), noise(), small(), tmp_path, checkpoint_seconds=0.0, on_step=interrupt_after(6))
    return tmp_path


def kept(folder):
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("checkpoint-*"))


def go_on(folder, whole):
    """The steps that it takes to get from what is in the folder to the result of an undisturbed training."""
    steps = []
    run = fit(model(), noise(), small(), folder, on_step=steps.append)
    assert_same(run.model.state_dict(), whole.model.state_dict())
    assert_same_history(run, whole)
    return steps


def test_what_is_saved_is_loaded_without_pickled_code(tmp_path):
    state = {"step": 3, "weights": {"a": torch.randn(2, 3)}, "rates": [0.1, (2, 3)]}
    checkpoint.save(tmp_path, 3, state)
    assert_same(checkpoint.load(tmp_path), state)
    assert checkpoint.load(tmp_path / "nothing") is None


def test_the_last_two_are_kept_and_none_after_the_end(stopped, whole):
    assert [int(NAME.fullmatch(path.name)[1]) for path in kept(stopped)] == [5, 6]
    assert go_on(stopped, whole) == [7, 8, 9, 10]
    assert not kept(stopped)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(damage, stopped, whole, caplog):
    newest = kept(stopped)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"cut": content[:-1], "changed": content, "empty": b""}[damage])
    assert go_on(stopped, whole) == [6, 7, 8, 9, 10]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{newest} is damaged, the checkpoint before it is taken"
    ]


def without_a_name(state):
    del state["totals"]


def with_other_weights(state):
    weights = state["state"]["model"]
    name = next(name for name, weight in weights.items() if weight.ndim == 2)
    weights[name] = weights[name].mT.clone()


def without_an_optimiser(state):
    state["state"]["optimizer"] = {"state": {}, "param_groups": []}


@pytest.mark.parametrize("change", [without_a_name, with_other_weights, without_an_optimiser])
def test_a_state_of_another_version_is_refused_in_one_line_and_stays(change, stopped):
    for path in kept(stopped):
        state = checkpoint.load(stopped)
        path.unlink()
    change(state)
    checkpoint.save(stopped, 6, state)
    before = kept(stopped)
    with pytest.raises(InputError, match=r"another version of vaestudy.*remove its checkpoint-\*\.pt"):
        fit(model(), noise(), small(), stopped)
    assert kept(stopped) == before


def test_if_all_are_damaged_the_training_starts_anew_and_keeps_new_ones(stopped, whole):
    for path in kept(stopped):
        path.write_bytes(b"damaged")
    with pytest.raises(Interrupted):
        fit(model(), noise(), small(), stopped, checkpoint_seconds=0.0, on_step=interrupt_after(2))
    assert [int(NAME.fullmatch(path.name)[1]) for path in kept(stopped)] == [1, 2]
    assert go_on(stopped, whole) == [3, 4, 5, 6, 7, 8, 9, 10]


def test_what_a_killed_process_was_writing_does_not_stay(stopped, whole):
    """A kill between two instructions: of the temporary file, of a line of the log, of the lock."""
    for name in ("checkpoint-000000000007-0123456789abcdef.pt", "config.json", "record.json"):
        (stopped / f".{name}.abcd_123").write_bytes(b"half")
    with (stopped / "metrics.jsonl").open("a") as log:
        log.write('{"images_seen": 140, "loss"')
    assert go_on(stopped, whole) == [7, 8, 9, 10]
    assert {path.name for path in stopped.iterdir()} - {".lock"} == {path.name for path in whole.path.iterdir()} - {
        ".lock"
    }


@pytest.mark.parametrize("lost", ["save_weights", "update_record"])
def test_a_kill_at_the_end_is_made_good(lost, tmp_path, whole, monkeypatch):
    """Before the weights are written, and between them and the record that makes a run a finished one."""

    def killed(*_, **__):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Run, lost, killed)
        with pytest.raises(Interrupted):
            fit(model(), noise(), small(), tmp_path)
    assert not Run(tmp_path, model()).finished
    assert [int(NAME.fullmatch(path.name)[1]) for path in kept(tmp_path)] == [STEPS]
    assert go_on(tmp_path, whole) == []
    assert not kept(tmp_path)
