"""Checkpoints: two at most, none at the end, and a damaged one costs a step, not the training."""

import pickle
import re

import pytest
from small_training import (
    STEPS,
    Interrupted,
    assert_same,
    assert_same_history,
    dense,
    fit,
    interrupt_after,
    noise,
    small,
)

from vaestudy.errors import InputError
from vaestudy.training import Run, checkpoint

NAME = re.compile(r"checkpoint-(\d{12})-[0-9a-f]{16}\.pt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(dense(), noise(), small(), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def stopped(tmp_path):
    """The folder of a training that has written a checkpoint after each of its six steps."""
    with pytest.raises(Interrupted):
        fit(dense(), noise(), small(), tmp_path, checkpoint_seconds=0.0, on_step=interrupt_after(6))
    return tmp_path


def kept(folder):
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("checkpoint-*"))


def go_on(folder, whole):
    """The steps that it takes to get from what is in the folder to the result of an undisturbed training."""
    steps = []
    run = fit(dense(), noise(), small(), folder, on_step=steps.append)
    assert_same(run.model.state_dict(), whole.model.state_dict())
    assert_same_history(run, whole)
    return steps


def test_a_state_that_only_code_could_load_is_not_loaded(tmp_path):
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, 3, {"step": 3, "folder": tmp_path})
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(tmp_path)


def test_the_last_two_are_kept_and_none_after_the_end(stopped, whole):
    assert [int(NAME.fullmatch(path.name)[1]) for path in kept(stopped)] == [5, 6]
    assert go_on(stopped, whole) == [7, 8, 9, 10]
    assert not kept(stopped)


@pytest.mark.parametrize("damage", ["changed", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(damage, stopped, whole, caplog):
    newest = kept(stopped)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content if damage == "changed" else b"")
    assert go_on(stopped, whole) == [6, 7, 8, 9, 10]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{newest} is damaged" in warning


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
    with pytest.raises(InputError, match="another version"):
        fit(dense(), noise(), small(), stopped)
    assert kept(stopped) == before


def test_if_all_are_damaged_the_training_starts_anew_and_keeps_new_ones(stopped, whole):
    for path in kept(stopped):
        path.write_bytes(b"damaged")
    with pytest.raises(Interrupted):
        fit(dense(), noise(), small(), stopped, checkpoint_seconds=0.0, on_step=interrupt_after(2))
    assert [int(NAME.fullmatch(path.name)[1]) for path in kept(stopped)] == [1, 2]
    assert go_on(stopped, whole) == [3, 4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("lost", ["save_weights", "update_record"])
def test_a_kill_at_the_end_is_made_good(lost, tmp_path, whole, monkeypatch):
    """Before the weights are written, and between them and the record that makes a run a finished one."""

    def killed(*_, **__):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Run, lost, killed)
        with pytest.raises(Interrupted):
            fit(dense(), noise(), small(), tmp_path)
    assert not Run(tmp_path, dense()).finished
    assert [int(NAME.fullmatch(path.name)[1]) for path in kept(tmp_path)] == [STEPS]
    assert go_on(tmp_path, whole) == []
    assert not kept(tmp_path)
