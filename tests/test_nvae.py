import copy
import functools
import math
from dataclasses import replace

import pytest
import torch

from vaestudy.errors import InputError
from vaestudy.models.cells import Cell, SqueezeExcitation
from vaestudy.models.layers import Conv, NormAct
from vaestudy.models.likelihoods import Bernoulli
from vaestudy.models.nvae import NVAE
from vaestudy.models.nvae_config import NVAEConfig

ONE_CELL = {"encoder_cells": 1, "decoder_cells": 1}
SMALL = NVAEConfig(shape=(1, 32, 32), likelihood="bernoulli", channels=8, latents=4, groups=(1, 2), **ONE_CELL)
TINY = replace(SMALL, shape=(1, 8, 8), channels=4, latents=2)


@functools.cache
def on_meta(config: NVAEConfig) -> NVAE:
    with torch.device("meta"):
        return NVAE(config)


def count(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def images(config: NVAEConfig, n: int = 3) -> torch.Tensor:
    """Images on the grid of the configuration's levels."""
    levels = 2 if config.likelihood == "bernoulli" else 2**config.bits
    return torch.randint(0, levels, (n, *config.shape)) / (levels - 1)


def rebuilt(model: NVAE, x: torch.Tensor, keep: int) -> torch.Tensor:
    """Means throughout: of the posterior in the top groups, of the prior below."""
    return model.sample(len(x), 0.0, fixed_top=model.encode(x), keep=keep)


# The parameters of the published configurations: total, learned constant, stem, pre-process, encoder tower, summary,
# posteriors, priors, flows, decoder tower, post-process, head; then the convolutions, those with weight norm, and the
# batch norms; then the top constant's shape, the number of latents and of groups.
IMAGES_256 = (
    [330798664, 61440, 870, 68198, 203223592, 923520, 3113280, 310000, 3928320, 119110136, 32108, 27200],
    [986, 758, 460],
    [(960, 8, 8), 6_005_760, 36],
)
PUBLISHED = {
    "mnist": (
        [33363134, 4096, 352, 478812, 19222864, 66048, 922800, 93280, 0, 12373288, 201304, 290],
        [255, 150, 214],
        [(256, 4, 4), 14_400, 15],
    ),
    "cifar10": (
        [130852480, 65536, 3712, 1226392, 73324992, 66048, 2767200, 299280, 1636800, 50881952, 465168, 115400],
        [610, 430, 364],
        [(256, 16, 16), 153_600, 30],
    ),
    "celeba64": (
        [153281364, 32768, 1856, 307532, 89970160, 263168, 2767600, 289440, 1909600, 57556376, 125064, 57800],
        [730, 514, 436],
        [(512, 8, 8), 467_200, 35],
    ),
    "imagenet32": (
        [268509444, 98304, 5568, 2756580, 153864768, 148224, 3872960, 416880, 1527680, 104625168, 1020312, 173000],
        [570, 402, 340],
        [(384, 16, 16), 143_360, 28],
    ),
    "ffhq256": IMAGES_256,
    "celeba_hq256": IMAGES_256,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_configurations(name):
    model = on_meta(NVAEConfig.preset(name))
    groups, modules = model.groups, list(model.modules())
    parts = [
        count(model),
        model.start.numel(),
        count(model.stem),
        count(model.preprocess),
        count(model.encoder, *(group.merge_state for group in groups[1:])),
        count(model.summary),
        count(*(group.posterior_head for group in groups)),
        count(*(group.prior_head for group in groups[1:])),
        count(*(group.flow for group in groups)),
        count(*(module for group in groups for module in (group.cells, group.merge_latent))),
        count(model.postprocess),
        count(model.head),
    ]
    convs = [m for m in modules if isinstance(m, Conv)]
    norms = [m for m in modules if isinstance(m, NormAct) and m.weight is not None]
    layers = [len(convs), sum(conv.log_norm is not None for conv in convs), len(norms)]
    latents = [tuple(model.start.shape[1:]), sum(math.prod(shape) for shape in model.group_shapes), len(groups)]
    assert (parts, layers, latents) == PUBLISHED[name]
    # Cells of one kind are compiled once, or twice where their maps differ in size; the compiler keeps 64 in all.
    kinds = {tuple(weight.shape for weight in m.parameters()) for m in modules if isinstance(m, Cell)}
    assert 2 * len(kinds) < 64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NVAEConfig.preset("celeba"), "preset .*celeba64"),
        (lambda: NVAEConfig.preset("cifar10", shape=(1, 32, 32)), "3 channels"),
        (lambda: NVAEConfig.preset("celeba64", shape=(3, 36, 36)), "multiple of 8"),
        (lambda: replace(SMALL, decoder_cell="wide"), "decoder_cell"),
        (lambda: replace(SMALL, groups=(1, 0)), "each scale"),
        (lambda: replace(SMALL, groups=(), latents=()), "each scale"),
        (lambda: replace(SMALL, latents=(1, 2, 3)), "each scale"),
        (lambda: replace(SMALL, norm_activation="wn_elu", weight_norm=False), "weight_norm"),
        (lambda: replace(SMALL, shape=(2, 32, 32), likelihood="mixture"), "1 or 3 channels"),
    ],
)
def test_senseless_configurations_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model: model(torch.zeros(2, 1, 16, 16)), r"\(1, 8, 8\), not \(1, 16, 16\)"),
        (lambda model: model.decode([torch.zeros(1, 2, 2, 2)]), "3 groups"),
        (lambda model: model.sample(2, -1.0), "temperature"),
        (lambda model: model.sample(2, keep=1), "keep"),
    ],
)
def test_what_a_model_cannot_do_is_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask(NVAE(TINY))


SWITCHES = [
    {},
    {"shape": (3, 16, 24), "likelihood": "mixture", "mixtures": 2, "bits": 5},
    {"likelihood": "gaussian", "blocks": 2, "shape": (1, 16, 16)},
    {"border": 2, "shape": (1, 28, 28)},
    {"unshuffle": 2, "channel_cap": 6, "latents": (3, 1), "shape": (3, 16, 16)},
    {"decoder_cell": "regular"},
    {"norm_activation": "bn_elu", "squeeze_excitation": False, "weight_norm": False},
    {"norm_activation": "wn_elu", "checkpoint": "norm_act"},
    {"flows": 1, "residual": False, "groups": (1,), "top_prior_std": 1.01},
    {"block_cells": 1, "groups": (1, 1, 1), "checkpoint": "norm_act"},
    {"blocks": 0, "checkpoint": "cell"},
]


@pytest.mark.parametrize("changes", SWITCHES)
def test_every_switch_trains_encodes_and_samples(changes):
    config = replace(TINY, **changes)
    model, x = NVAE(config), images(config)
    with torch.autocast("cpu", torch.bfloat16, enabled="shape" not in changes):
        terms = model(x)
    assert terms.nll.dtype == terms.kl.dtype == torch.float32
    assert terms.nll.shape == (3,)
    assert terms.kl.shape == (sum(config.groups), 3)
    (terms.nll + terms.kl.sum(0)).mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []
    model.eval()
    assert not [name for name in model.state_dict() if "mask" in name]
    latents = model.encode(x)
    assert [tuple(z.shape[1:]) for z in latents] == list(model.group_shapes)
    assert model.decode(latents).shape == x.shape
    assert model.sample(2, 0.7).shape == (2, *config.shape)
    assert 0 <= model.sample(2).min() <= model.sample(2).max() <= 1
    weights = model.log_weights(x, 2)
    assert weights.shape == (3, 2)
    assert weights.isfinite().all()
    assert rebuilt(model, x, keep=1).shape == x.shape


@pytest.mark.parametrize(
    ("name", "shapes", "total"),
    [
        ("laptop32", ((16, 2, 2), (16, 4, 4), (4, 8, 8)), 739_256),
        ("laptop32_cells", ((16, 2, 2), (16, 4, 4), (4, 8, 8)), 713_804),
        ("hierarchy32", ((8, 1, 1), (4, 2, 2), (2, 4, 4)), 860_568),
        ("hierarchy32_top", ((8, 1, 1),), 835_840),
    ],
)
def test_the_studys_own_presets(name, shapes, total):
    config = NVAEConfig.preset(name)
    assert config.group_shapes == shapes
    assert count(on_meta(config)) == total


def test_the_flat_reference_has_the_cells_of_the_hierarchy_in_their_order():
    def cells(name):
        model = on_meta(NVAEConfig.preset(name))
        return [[(n, p.shape) for n, p in m.named_parameters()] for m in model.modules() if isinstance(m, Cell)]

    names = ("hierarchy32", "hierarchy32_top")
    assert cells(names[0]) == cells(names[1])
    # What a group adds by itself: its heads, and the ways in and out of the decoder's state.
    hierarchy, flat = (on_meta(NVAEConfig.preset(name)) for name in names)
    own = [(g.posterior_head, g.prior_head, g.merge_state, g.merge_latent) for g in hierarchy.groups[1:]]
    assert count(hierarchy) - count(flat) == sum(count(*parts) for parts in own)
    kinds = {type(m) for model in (hierarchy, flat) for m in model.modules()}
    assert SqueezeExcitation not in kinds
    assert all(m.log_norm is None for model in (hierarchy, flat) for m in model.modules() if isinstance(m, Conv))


def test_first_weights_depend_on_the_seed_alone():
    first = NVAE(TINY).state_dict()
    torch.rand(5)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), NVAE(TINY).state_dict().values(), strict=True))
    other = NVAE(replace(TINY, seed=1)).state_dict()
    assert any(not torch.equal(a, b) for a, b in zip(first.values(), other.values(), strict=True))


def test_an_encoder_that_adds_nothing_leaves_the_prior():
    model = NVAE(TINY).eval()
    for group in model.groups[1:]:
        for parameter in (group.posterior_head.weight, group.posterior_head.bias):
            torch.nn.init.zeros_(parameter)
    kl = model(images(TINY)).kl
    assert kl[0].min() > 0
    assert kl[1:].abs().max() < 1e-4


def test_the_top_prior():
    x = images(TINY)
    standard, official = NVAE(TINY).eval(), NVAE(replace(TINY, top_prior_std=1.01)).eval()
    raw = standard.groups[0].posterior_head(standard.encoder_features(x)[0])
    mean, std = 5 * torch.tanh(raw[:, :2] / 5), torch.exp(5 * torch.tanh(raw[:, 2:] / 5)) + 0.01
    for model, scale in ((standard, 1.0), (official, 1.01)):
        expected = torch.distributions.kl_divergence(
            torch.distributions.Normal(mean, std), torch.distributions.Normal(torch.zeros_like(mean), scale)
        )
        assert torch.allclose(model.kl_per_latent(x)[0], expected, atol=1e-5)


def test_resampling_below_a_fixed_top():
    model, x = NVAE(TINY).eval(), images(TINY, 1)
    code = model.encode(x)
    one = model.decode(code)
    assert torch.allclose(model.sample(2, fixed_top=code, keep=3), one.expand(2, -1, -1, -1), atol=1e-6)
    silent = model.sample(6, 0.0, fixed_top=code, keep=2)
    assert torch.allclose(silent, rebuilt(model, x, keep=2).expand(6, -1, -1, -1), atol=1e-6)
    assert model.sample(6, fixed_top=code, keep=2).std(0).max() > 0


def test_the_kl_per_latent_is_what_forward_sums():
    model, x = NVAE(replace(TINY, flows=1)).eval(), images(TINY)
    torch.manual_seed(3)
    kl = model(x).kl
    torch.manual_seed(3)
    assert torch.allclose(torch.stack([group.sum((1, 2, 3)) for group in model.kl_per_latent(x)]), kl)


@pytest.mark.parametrize("flows", [0, 1])
def test_importance_weights_average_to_the_likelihood(flows):
    # Few latents and an untrained decoder: draws from the prior alone measure p(x) well. Sharpening the posterior
    # widens the gap between the bound and what many weights find.
    config = replace(TINY, shape=(1, 4, 4), latents=1, groups=(1, 1), flows=flows)
    model, x = NVAE(config).eval(), images(config, 1)
    torch.nn.init.constant_(model.groups[0].posterior_head.bias, -0.7)
    many = x.expand(4000, -1, -1, -1)
    with torch.no_grad():
        weights = model.log_weights(many, 5)
        state = model.generate(len(many), lambda index, state: model.groups[index].prior(state)[1].sample())
        prior = model.likelihood.log_prob(model.pixel_params(state), many)

    def log_mean(values):
        largest = values.max()
        scaled = (values - largest).exp()
        return (largest + scaled.mean().log()).item(), (scaled.std() / scaled.mean() / len(values) ** 0.5).item()

    (found, error), (truth, other) = log_mean(weights.flatten()), log_mean(prior)
    assert abs(found - truth) < 4 * math.hypot(error, other)
    with torch.no_grad():
        terms = model(many)
    bounds, once = -terms.nll - terms.kl.sum(0), weights[:, 0]  # a single weight is the bound on average
    assert abs(bounds.mean() - once.mean()) < 4 * math.hypot(bounds.std(), once.std()) / math.sqrt(len(many))
    assert weights.mean().item() < torch.logsumexp(weights - math.log(5), dim=1).mean().item() < found


def test_the_border_is_not_scored():
    config = replace(TINY, shape=(1, 28, 28), border=2)
    model, x = NVAE(config).eval(), images(config)
    torch.manual_seed(0)
    nll = model(x).nll
    torch.manual_seed(0)
    params = model.pixel_params(model.infer(model.encoder_features(x))[0])
    assert params.shape == x.shape
    assert torch.allclose(-Bernoulli().log_prob(params, x), nll)


def test_means_are_finer_than_bf16():
    model = NVAE(TINY).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        params = model.pixel_params(model.infer(model.encoder_features(images(TINY)))[0])
    assert params.dtype == torch.float32
    assert (params != params.bfloat16()).float().mean() > 0.9


def test_channels_last_gives_the_same_numbers():
    config = replace(SMALL, shape=(1, 16, 16))
    model, x = NVAE(config).eval(), images(config)
    plain = model.decode(model.encode(x))
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert torch.allclose(last.decode(last.encode(x)), plain, atol=1e-5)
    layouts = set()
    for cell in last.modules():
        if isinstance(cell, Cell):
            cell.register_forward_hook(
                lambda m, args, out: layouts.add(out.is_contiguous(memory_format=torch.channels_last))
            )
    last(x)
    assert layouts == {True}


def statistics(model):
    return {name: value.clone() for name, value in model.state_dict().items() if ".running_" in name}


def test_batch_norm_statistics_are_averages_over_the_passes():
    model = NVAE(TINY).eval()
    before, each = statistics(model), []
    assert len(before) == 2 * sum(isinstance(m, NormAct) and m.weight is not None for m in model.modules())
    torch.manual_seed(4)
    with model.reestimated_batch_norm(passes=3, n=8, temperature=0.5):
        found = statistics(model)
    torch.manual_seed(4)
    for _ in range(3):  # one pass after the other, in the same draws
        with model.reestimated_batch_norm(passes=1, n=8, temperature=0.5):
            each.append(statistics(model))
    for name, value in found.items():
        if name.startswith(("preprocess", "encoder")):
            assert torch.equal(value, before[name])
        else:
            assert torch.allclose(value, torch.stack([one[name] for one in each]).mean(0), atol=1e-6), name
            assert not torch.allclose(value, before[name])
    assert not model.training


def test_batch_norm_statistics_come_back_whatever_happens():
    model = NVAE(TINY).eval()
    before = statistics(model)

    def fail():
        assert any(not torch.equal(value, before[name]) for name, value in statistics(model).items())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), model.reestimated_batch_norm(passes=1, n=8):
        fail()
    assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())


def test_batch_norm_statistics_stay_finite(monkeypatch):
    model = NVAE(TINY).eval()
    draws = iter([math.nan, 1.0, math.inf])
    plain = NVAE.sample
    monkeypatch.setattr(NVAE, "sample", lambda self, n, temperature: plain(self, n, next(draws)))
    before, name = statistics(model), "postprocess.0.branch.0.norm_act.running_mean"
    with model.reestimated_batch_norm(passes=3, n=8):
        assert all(value.isfinite().all() for value in statistics(model).values())
        assert not torch.equal(statistics(model)[name], before[name])
    assert not model.training
