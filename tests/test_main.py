"""The command line: one clear line for what is wrong, the resolved configuration, and a trained, scored stage."""

import json
import os
import subprocess
import sys

import pytest

from vaestudy.__main__ import main
from vaestudy.errors import InputError
from vaestudy.training.listing import open_run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vae", "--dataset", "dsprits"], "unknown dataset"),
        (["vae", "--image_size", "63"], "63"),
        (["beta_vae", "--seeds", "1"], "seeds must be 2 or more"),
        (["vae", "--dataset", "mnist"], "mnist"),
        (["nvae", "--preset", "mnist", "--profile", "smoke"], "images of 1 channels, not 3"),
        (["nvae", "--preset", "huge", "--profile", "smoke"], "preset must be one of mnist, cifar10"),
        (["nvae", "--image_size", "50", "--profile", "smoke"], "50"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, capsys, tmp_path, dsprites_dir):
    assert main([*arguments, "--runs_dir", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments", [["gan"], ["runs", "--bla"]])
def test_words_that_the_command_line_does_not_know(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "vaestudy" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "stage"), [([], "vae"), (["train"], "beta_vae"), ([], "nvae")])
def test_a_dry_run_prints_the_resolved_configuration(stage, form, capsys, tmp_path):
    words = [*form, stage, "--profile", "smoke", "--beta", "2", "--dry-run", "--runs_dir", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert (resolved["stage"], resolved["beta"], resolved["profile"]) == (stage, 2.0, "smoke")
    assert resolved["sizes"]["training"]["images"] > 0
    assert resolved["image_size"] == resolved["sizes"]["image_size"] > 0
    assert {row["trained"] for row in resolved["trainings"]} == {0}
    assert main(words) == 0
    said = capsys.readouterr().out
    for row in resolved["trainings"]:
        assert f"{row['images']:,}" in said
        assert f"{row['parameters'] / 1e6:.2f} M" in said
    assert not list(tmp_path.iterdir())


def test_a_wrong_name_or_value_is_refused_in_one_line_before_torch_is_imported(capsys):
    for typed, said in ((["--bta", "4"], "did you mean 'beta'"), (["--beta", "-4"], "beta must be 0 to")):
        assert main(["train", "beta_vae", *typed]) == 2
        assert said in capsys.readouterr().err
    code = (
        "import sys; from vaestudy.__main__ import main; main(['vae', '--beta', '-4']); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_folder_that_cannot_be_written_is_one_line(capsys, tmp_path, dsprites_dir):
    (tmp_path / "file").write_text("")
    assert main(["vae", "--profile", "smoke", "--runs_dir", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_stage_is_trained_and_scored_once(capsys, tmp_path, dsprites_dir):
    command = ["vae", "--profile", "smoke", "--runs_dir", str(tmp_path)]
    assert main(command) == 0
    scored = [path for path in tmp_path.rglob("record.json") if "score_card" in path.read_text()]
    assert len(scored) == 1
    folder, result = scored[0].parent, json.loads(scored[0].read_text())
    assert result["test"]["elbo_nats"] < 0
    assert {score["metric"] for score in result["score_card"]} >= {"higgins", "mig", "factor_vae"}
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    assert (folder / "model.safetensors").stat().st_mtime_ns == weights
    assert str(folder) in [run["folder"] for run in json.loads(capsys.readouterr().out)]
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["stage", "model", "β", "seed", "data"]
    (line,) = [line for line in lines if line.endswith(str(folder))]
    for part in ("VAE (latents 10, network mlp", " 1  ", "dsprites 16x16", "finished"):
        assert part in line
    assert open_run(folder).model.config.latent_dim == 10


def test_a_damaged_run_is_listed_as_such_and_an_unfinished_one_is_not_opened(capsys, tmp_path):
    (tmp_path / "vae-1").mkdir()
    (tmp_path / "vae-1" / "config.json").write_text("[1")
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    assert "damaged" in capsys.readouterr().out
    with pytest.raises(InputError, match="is no finished run"):
        open_run(tmp_path / "vae-1")
    assert main(["runs", "--runs-dir", str(tmp_path / "none")]) == 2
    assert "there are no runs" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["runs", "--runs-dir", "{}"], ["--help"]])
def test_a_closed_pipe_ends_a_command_without_a_word(words, tmp_path):
    (tmp_path / "vae-1").mkdir()
    (tmp_path / "vae-1" / "config.json").write_text("[1")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "vaestudy", *(word.format(tmp_path) for word in words)]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert ended.stderr == ""
    assert ended.returncode == 141 or "--help" in words  # argparse keeps quiet by itself


def report(folder, **changes):
    claim = {"id": "2.1", "verdict": "supported", "decidable": True}
    number = {"quantity": "score", "mean": 0.8, "std": 0.1, "n": 8, "digits": 2}
    whole = {"profile": "laptop", "version": "1", "claims": [claim], "headline": [number], "checksums": {"a": "b"}}
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(whole | changes))
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "status", "line"),
    [
        ({}, 0, "verified: 1 of 1 claims agree"),
        ({"claims": [{"id": "2.1", "verdict": "contradicted", "decidable": True}]}, 1, "1 reversed"),
        ({"claims": "none"}, 2, "damaged"),
    ],
)
def test_verify_compares_a_report_with_the_published_one(changes, status, line, tmp_path, capsys):
    ours, published = report(tmp_path / "ours", **changes), report(tmp_path / "published")
    assert main(["verify", ours, "--against", published]) == status
    said = capsys.readouterr()
    assert line in (said.err if status == 2 else said.out.splitlines()[-1])


def test_verify_says_where_a_published_report_is_missing(tmp_path, capsys):
    assert main(["verify", report(tmp_path / "ours", profile="paper")]) == 2
    assert "no published report" in capsys.readouterr().err
