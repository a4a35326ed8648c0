"""Published records and models: pages are made from them where nothing was made here."""

import shutil
from dataclasses import replace

import pytest
import torch
from small_training import fit, noise, small

from vaestudy import settings
from vaestudy.data import ImageSet
from vaestudy.experiments import evidence, nvae
from vaestudy.experiments.evidence import Context, Part
from vaestudy.figures import moving
from vaestudy.files import write_json
from vaestudy.models import NVAE, VAE, NVAEConfig
from vaestudy.training import Job, Run, listing

NIGHT = settings.resolve("beta_vae", profile="night")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with nothing in it but its published night, a piece of two records."""
    part = Part("sweep32", "beta_vae", lambda context: [{"seed": seed, "beta": 1.0} for seed in context.seeds])
    evidence.run_piece(part, Context({}, None, tmp_path), (0, 1), "00", tmp_path / "reports" / "published" / "night")
    monkeypatch.setattr(evidence, "project_root", lambda: tmp_path)
    return tmp_path


def own_records(project):
    """One piece that was made here."""
    records = project / "reports" / "published" / "night" / "records"
    shutil.copytree(records, project / "reports" / "night" / "records")
    path = project / "reports" / "night" / "records" / "sweep32-00.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])


def test_a_night_of_which_nothing_was_made_is_rendered_from_the_published_records(project):
    assert evidence.of_page(NIGHT)["seed"].tolist() == [0, 1]
    own_records(project)
    assert evidence.of_page(NIGHT)["seed"].tolist() == [0]


def test_what_the_published_night_could_not_test_either_is_no_verdict(project):
    found = {claim["id"]: "not tested" for claim in evidence.judge(NIGHT, evidence.of_page(NIGHT))}
    first, *others = found
    claims = [{"id": first, "verdict": "supported"}, *({"id": other, "verdict": "not tested"} for other in others)]
    write_json(project / "reports" / "published" / "night" / "results.json", {"claims": claims})
    judged = evidence.judge(NIGHT, evidence.of_page(NIGHT))
    assert {claim["id"]: claim["published"] for claim in judged} == {first: "supported"} | dict.fromkeys(others)


def job(**changes):
    return "vae", VAE((1, 8, 8), latent_dim=2, width=8), noise(), small(**changes)


def published(project, job):
    """The finished run of a job as it is published: without what a training alone needs."""
    name = Job.below(project / "runs", *job).run.path.name
    run = fit(*job[1:], project / "elsewhere" / name)
    folder = project / "reports" / "published" / "night" / "runs" / name
    folder.mkdir(parents=True)
    for file in Run.FILES:
        shutil.copyfile(run.path / file, folder / file)
    return run, folder


def test_a_published_model_takes_the_place_of_its_training(project):
    run, _ = published(project, job())
    own = Job.below(project / "runs", *job())
    evidence.adopt_published([own], "night")
    assert own.run.finished
    assert own.run.record == run.record
    found = fit(*own, on_step=pytest.fail)  # nothing is left to train
    for name, weights in run.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], weights)


def test_what_was_begun_here_is_trained_here(project):
    published(project, job())
    own_records(project)
    own = Job.below(project / "runs", *job())
    evidence.adopt_published([own], "night")
    assert not own.run.path.exists()
    evidence.adopt_published([Job.below(project / "runs", *job(seed=1))], "night")  # is not published
    assert not (project / "runs").exists()


def test_a_half_copied_model_is_copied_again(project):
    _, folder = published(project, job())
    own = Job.below(project / "runs", *job())
    own.run.path.mkdir(parents=True)
    (own.run.path / "model.safetensors").write_bytes(b"half")
    evidence.adopt_published([own], "night")
    assert (own.run.path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_published_nvae_stands_beside_one_that_saw_fewer_of_the_same_images(project):
    bits = torch.zeros(40, 3, 16, 16, dtype=torch.uint8)
    images = ImageSet("faces_mild", (3, 16, 16), bits, checksum="black", bits=5)
    model, recipe = NVAE(NVAEConfig.preset("smoke", shape=(3, 16, 16))), small(images=16, batch=8, log_every=8)
    short = fit(model, images, recipe, project / "runs" / "nvae-short")
    runs = nvae.Runs({1.0: short}, short)
    assert nvae.published_run(runs) == {}
    long, _ = published(project, ("nvae", model, images, replace(recipe, images=32)))
    ((name, run),) = nvae.published_run(runs).items()
    assert name == "NVAE, β = 1, of this study's night, 32 images"
    assert run.recipe["images"] == 32
    assert nvae.published_run(nvae.Runs({1.0: long}, long)) == {}
    other = fit(model, replace(images, name="cats"), recipe, project / "runs" / "nvae-cats")
    assert nvae.published_run(nvae.Runs({1.0: other}, other)) == {}


def test_published_vaes_can_be_explored_at_once(project, monkeypatch):
    for module in (moving, listing):
        monkeypatch.setattr(module, "project_root", lambda: project)
    published(project, job())
    ((words, folder),) = moving.explore_options()
    assert "published" in folder
    assert words.startswith("vae: VAE")
