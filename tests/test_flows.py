import pytest
import torch

from vaestudy.models.latents import Flow, Shift


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


def test_parameters_and_start():
    flow = Flow(20, pairs=1)
    assert sum(p.numel() for p in flow.parameters()) == 54_560
    z = torch.randn(8, 20, 8, 8)
    shift = (flow(z) - z).square().mean().sqrt().item()
    assert 0.03 < shift < 0.13  # near the identity: the reference figure is 0.066
    assert torch.equal(Flow(20, pairs=0)(z), z)
