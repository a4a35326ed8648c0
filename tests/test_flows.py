import pytest
import torch

from vaestudy.models.flows import Flow, Shift, causal_mask


def jacobian(module: torch.nn.Module, channels: int, side: int) -> torch.Tensor:
    """Of the flattened map in (raster, channel) order, (side² c, side² c)."""
    z = torch.randn(side * side * channels, dtype=torch.float64)

    def flat(z):
        image = z.view(1, side, side, channels).permute(0, 3, 1, 2)
        return module(image).permute(0, 2, 3, 1).flatten()

    return torch.autograd.functional.jacobian(flat, z)


def test_a_shift_has_a_unit_lower_triangular_jacobian():
    matrix = jacobian(Shift(3).double(), channels=3, side=4)
    assert torch.equal(matrix.diagonal(), torch.ones(48, dtype=torch.float64))
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    assert matrix.tril(-1).abs().max() > 1e-3


def test_the_mirrored_shift_runs_through_the_pixels_backwards():
    matrix = jacobian(Shift(3, mirrored=True).double(), channels=3, side=4).view(16, 3, 16, 3)
    matrix = matrix.flip(0, 2).reshape(48, 48)  # pixels backwards, channels as they were
    assert torch.equal(matrix.diagonal(), torch.ones(48, dtype=torch.float64))
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))


def test_a_flow_keeps_volume():
    matrix = jacobian(Flow(2, pairs=2).double(), channels=2, side=3)
    assert torch.linalg.slogdet(matrix).logabsdet.item() == pytest.approx(0, abs=1e-9)
    assert matrix.triu(1).abs().max() > 1e-4  # both orders together reach every variable
    assert matrix.tril(-1).abs().max() > 1e-4


def test_the_first_variable_moves_by_a_constant():
    shift, z = Shift(4), torch.randn(5, 4, 3, 3)
    moved = (z - shift(z))[:, 0, 0, 0]
    assert torch.allclose(moved, moved[:1].expand(5))


def test_the_second_channel_at_the_first_pixel_sees_the_first_alone():
    z = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    z[1, 0, 0, 0] = 1.0
    first, second = (z - Shift(2).double()(z))[:, :, 0, 0].unbind(1)
    assert torch.allclose(first[0], first[1])
    assert (second[0] - second[1]).abs() > 1e-4


def test_masks():
    strict = causal_mask(2, 4, 3, groups=1, strict=True, mirrored=False)
    assert strict[:, :, 0].min() == 1
    assert strict[:, :, 2].max() == 0
    assert strict[0, 0, 1].tolist() == [1, 0, 0]
    assert strict[:, :, 1, 1].tolist() == [[0, 0], [0, 0], [1, 0], [1, 0]]
    loose = causal_mask(4, 2, 1, groups=1, strict=False, mirrored=False)
    assert loose[:, :, 0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    depthwise = causal_mask(3, 3, 5, groups=3, strict=False, mirrored=True)
    assert depthwise.shape == (3, 1, 5, 5)
    assert depthwise[0, 0].sum() == 13
    assert depthwise[0, 0, 2].tolist() == [0, 0, 1, 1, 1]


def test_parameters_and_start():
    flow = Flow(20, pairs=1)
    assert sum(p.numel() for p in flow.parameters()) == 54_560
    z = torch.randn(8, 20, 8, 8)
    shift = (flow(z) - z).square().mean().sqrt().item()
    assert 0.03 < shift < 0.13  # near the identity: the reference figure is 0.066
    assert torch.equal(Flow(20, pairs=0)(z), z)
