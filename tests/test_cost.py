"""What a training costs, against counts by hand; and the sizes of the gpu profile against its ten minutes."""

import pytest
import torch

from vaestudy import data, profiles, settings
from vaestudy.experiments import STAGES, common, evidence, plan, prepare
from vaestudy.models import NVAE, VAE, NVAEConfig, Terms
from vaestudy.models.cells import Cell
from vaestudy.training import Objective, Training, cost

RECIPE = Training(images=1000, batch=10)
SLOW = cost.Rates("slow", flops=1e9, bytes=1e12, operation=0.0)


def test_products_of_a_linear_model_counted_by_hand():
    found = cost.cost(VAE((1, 4, 4), latent_dim=2, network="linear"), RECIPE, 500)
    # Forward, and backward to weights and inputs, but not to the image: 16 x 4 to the code, 2 x 16 from it.
    assert found.flops == 2 * 10 * (2 * 16 * 4 + 3 * 2 * 16)
    assert found.parameters == 16 * 4 + 4 + 2 * 16 + 16
    assert found.steps == 100
    # Products alone bind a device with bandwidth to spare.
    assert found.step_seconds(SLOW, halved=False) == pytest.approx(found.flops / 1e9 / cost.EFFICIENCY, rel=0.01)


@pytest.mark.parametrize(("kind", "multiply_adds"), [("regular", 2 * 9 * 8 * 8), ("depthwise", 48 * (8 + 25 + 8))])
def test_products_of_a_cell_grouped_convolutions_among_them(kind, multiply_adds):
    class One(torch.nn.Module):
        shape = (8, 6, 6)

        def __init__(self):
            super().__init__()
            self.cell = Cell(8, 8, kind, NVAEConfig(squeeze_excitation=False))

        def forward(self, x):
            y = self.cell(x.requires_grad_()).square().sum((1, 2, 3))
            return Terms(y, y[None])

    found = cost.cost(One(), RECIPE, 1000)
    assert found.flops == 3 * 2 * 10 * 36 * multiply_adds


def test_models_at_once_micro_batches_and_half_precision():
    model = VAE((1, 8, 8), latent_dim=2, network="kingma", width=16)
    one, many = cost.cost(model, RECIPE, 500), cost.cost(model, RECIPE, 500, models=7)
    assert many.flops == 7 * one.flops
    assert many.memory_bytes(False) == 7 * one.memory_bytes(False)
    assert many.operations == one.operations
    parts = cost.cost(model, Training(images=1000, batch=10, micro_batches=5), 500)
    assert parts.flops == one.flops
    assert parts.memory_bytes(False) < one.memory_bytes(False)
    assert parts.bytes(False) > one.bytes(False) > one.bytes(True) > 0.5 * one.bytes(False)
    assert cost.cost(model, RECIPE, 4).flops == 0.4 * one.flops  # a small set is one batch


def test_what_a_recipe_adds():
    model = NVAE(NVAEConfig.preset("smoke", shape=(3, 16, 16)))
    plain = cost.cost(model, RECIPE, 500)
    skipping = cost.cost(model, Training(images=1000, batch=10, grad_skip_factor=5.0), 500)
    weights = 4 * plain.parameters
    assert skipping.bytes(False) - plain.bytes(False) == pytest.approx(weights * 9 * 3)
    assert skipping.memory_bytes(False) - plain.memory_bytes(False) == pytest.approx(weights * 3)
    penalised = cost.cost(model, Training(images=1000, batch=10, objective=Objective(spectral=0.1)), 500)
    assert penalised.flops > plain.flops


def test_rates_of_this_machine_are_rates():
    rates = cost.measured(torch.device("cpu"), halved=False)
    assert 1e8 < rates.flops < 1e16
    assert 1e7 < rates.bytes < 1e14
    assert 1e-8 < rates.operation < 1


def test_a_rate_is_that_of_the_quietest_moment(monkeypatch):
    now = 0.0
    loads = {"one": iter([9.0, 2.0, 5.0]), "other": iter([3.0, 7.0, 1.0])}

    def work(name):
        nonlocal now
        now += next(loads[name])

    monkeypatch.setattr(cost.time, "perf_counter", lambda: now)
    works = [lambda: work("one"), lambda: work("other")]
    assert cost.least_seconds(works, torch.device("cpu"), rounds=3) == [2.0, 1.0]


@pytest.fixture(scope="module")
def measured_once():
    rates = cost.Rates("any", 1e12, 1e11, 1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "measured", lambda *_: rates)
        yield


# The others read what the page has trained.
PARTS_WITH_MODELS_OF_THEIR_OWN = {
    "vae": {"part gradients"},
    "beta_vae": {"part objectives", "part combinations"},
    "nvae": set(),
}


@pytest.mark.parametrize("stage", settings.STAGES)
def test_every_stage_of_the_gpu_profile_takes_less_than_ten_minutes(stage, measured_once, tmp_path):
    chosen = prepare(stage, profile="gpu", data_dir=str(tmp_path))
    planned = plan.plan(chosen, STAGES[stage])
    assert 60 < planned["gpu_seconds"] < 540  # the rest is for scores
    assert sum(row["models"] for row in planned["trainings"]) >= 2
    parts = {row["training"] for row in planned["trainings"]} & {
        f"part {name}" for name in profiles.parts(stage, "gpu")
    }
    assert parts == PARTS_WITH_MODELS_OF_THEIR_OWN[stage]
    assert all(row["memory_gb"] < 70 for row in planned["trainings"])
    assert not planned["data"]["found"]
    assert "data.load(" in planned["data"]["command"]
    assert not list(tmp_path.iterdir())


def test_256_pixels_need_one_gpu_at_a_micro_batch_and_no_sharding_of_weights():
    """At the paper's 4 images a GPU and at the profile's 16, with the gradients once more for DDP's messages."""
    with torch.device("meta"):
        model = NVAE(NVAEConfig.preset("celeba_hq256", checkpoint=profiles.sizes("nvae", "paper")["checkpoint"]))
    assert NVAEConfig.preset("celeba_hq256") == NVAEConfig.preset("ffhq256")
    recipe = profiles.sizes("nvae", "paper")["training"]
    assert recipe.batch / recipe.micro_batches == 16
    fixed, sixteen = cost.step_memory(model, recipe, 30_000)
    fixed += 4 * sum(weight.numel() for weight in model.parameters())
    assert fixed + sixteen / 2 < cost.GPU_MEMORY  # bf16 halves what is kept
    assert fixed + sixteen / 4 / 2 < 32e9  # the paper's V100
    assert fixed + recipe.micro_batches * sixteen / 2 > cost.GPU_MEMORY


def test_a_plan_says_whether_the_largest_step_fits(measured_once, tmp_path):
    planned = plan.plan(prepare("vae", profile="smoke", data_dir=str(tmp_path)), STAGES["vae"])
    row = planned["trainings"][0]
    assert "GB and fits one GPU of 80 GB" in plan.text(planned)
    row |= {"gpu_memory_gb": 62.0, "micro_batches": 8}
    assert "62.0 GB and fits one GPU of 80 GB; torchrun shares its 8 micro batches" in plan.text(planned)
    row["gpu_memory_gb"] = 90.0
    assert "90.0 GB and does not fit" in plan.text(planned)


def test_the_folders_are_those_of_the_training(measured_once, dsprites_dir, tmp_path):
    chosen = prepare("vae", profile="smoke", runs_dir=str(tmp_path))
    planned = plan.plan(chosen, STAGES["vae"])
    if not planned["data"]["found"]:  # nothing has asked for 16 pixels yet
        data.load("dsprites", image_size=common.image_side(chosen))
        planned = plan.plan(chosen, STAGES["vae"])
    jobs = STAGES["vae"].jobs(chosen, common.train_and_test(chosen)[0])
    expected = {str(job.run_dir) for alike in jobs.values() for job in alike}
    of_part = evidence.context_of_page(chosen, "gradients")
    part = evidence.PARTS["gradients"]
    expected |= {str(job.run_dir) for job in part.jobs(of_part, part.images(of_part))}
    assert {folder for row in planned["trainings"] for folder in row["folders"]} == expected
    assert all(folder in plan.text(planned) for folder in expected)


def test_missing_data_are_named_with_what_gets_them(measured_once, tmp_path):
    for name, words in (("mnist", "download=True"), ("shapes3d", "3dshapes.h5"), ("dsprites", "data.load('dsprites'")):
        side = {"mnist": 28, "shapes3d": 16, "dsprites": 8}[name]
        chosen = prepare("vae", profile="smoke", dataset=name, image_size=side, data_dir=str(tmp_path))
        said = plan.text(plan.plan(chosen, STAGES["vae"]))
        assert "missing: " in said
        assert words in said
