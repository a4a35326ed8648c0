import math

import pytest
import torch

from vaestudy.data.faces.rays import Rays, bell, pooled, smooth, soft, unit

SIDE, ZOOM = 32, 1.0


def number(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def rays(azimuth=(0.0,), elevation=(0.0,)):
    return Rays.through(*torch.broadcast_tensors(number(*azimuth), number(*elevation), number(0.0)), SIDE, ZOOM)


def points(seen, hit):
    return torch.stack([seen.at(hit.depth, axis) for axis in range(3)], dim=-1)


def test_a_sphere_looks_the_same_from_everywhere():
    seen = rays(azimuth=(0.0, 0.9, -0.4), elevation=(0.0, -0.3, 0.5))
    hit = seen.meet((0.7, 0.7, 0.7))
    square = seen.u**2 + seen.v**2
    inside = (square < 0.7**2).expand(3, SIDE, SIDE)
    assert torch.allclose(hit.depth[inside], (0.49 - square).clamp(min=0).sqrt().expand(3, -1, -1)[inside], atol=1e-3)
    assert (hit.inside[inside] > 0).all()
    assert (hit.inside[~inside] < 0).all()
    x, y, z = hit.normal()
    facing = x * seen.toward[0] + y * seen.toward[1] + z * seen.toward[2]
    assert torch.allclose(facing[inside] * 0.7, hit.depth[inside], atol=1e-3)


def test_points_lie_on_the_turned_and_tilted_ellipsoid_on_its_near_side_with_their_normals():
    seen = rays(azimuth=(0.6, -0.2), elevation=(0.2, -0.25)).narrowed(number(0.8, 0.0))
    axes, centre, tilt = torch.tensor([0.3, 0.5, 0.4]), torch.tensor([0.1, -0.2, 0.3]), 0.4
    hit = seen.meet(tuple(axes.tolist()), tuple(centre.tolist()), tilt)
    sin, cos = math.sin(tilt), math.cos(tilt)
    turn = torch.tensor([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    local = (points(seen, hit) - centre) @ turn.T
    met = hit.inside > 0
    assert met.sum() > 100
    assert torch.allclose((local / axes).square().sum(-1)[met], torch.tensor(1.0), atol=1e-3)
    expected = torch.nn.functional.normalize((local / axes**2) @ turn, dim=-1)
    normal = torch.stack(hit.normal(), dim=-1)
    assert torch.allclose(normal[met], expected[met], atol=1e-3)
    toward = torch.stack(seen.toward, dim=-1)
    assert ((normal * toward).sum(-1)[met] >= -1e-3).all()


def test_the_distance_from_the_outline_is_right_near_it():
    seen = rays()
    hit = seen.meet((0.6, 0.6, 0.2))
    distance = 0.6 - (seen.u**2 + seen.v**2).sqrt()
    near = distance.abs() < 0.1
    assert torch.allclose(hit.inside[0][near], distance[near], atol=0.01)


def test_heads_turn_to_the_right_and_look_up():
    seen = rays(azimuth=(0.5,), elevation=(0.3,))
    nose = (0.0, 0.0, 1.0)
    u, v = (sum(a * b for a, b in zip(axis, nose, strict=True)).item() for axis in (seen.right, seen.up))
    assert u == pytest.approx(math.sin(0.5))
    assert v == pytest.approx(math.sin(0.3) * math.cos(0.5))


def test_a_window_cuts_the_same_part_from_pictures_and_rays():
    seen = rays(azimuth=(0.3,))
    picture = (seen.u * 10 + seen.v)[None, None]
    part, cut = seen.window((-0.4, 0.2), (0.1, 0.7))
    assert torch.equal(picture[cut][0, 0], part.u * 10 + part.v)
    assert -0.4 <= part.u.min() < part.u.max() <= 0.2
    inner, again = part.window((-0.1, 0.9), (0.3, 0.5))
    assert torch.equal(picture[cut][again][0, 0], inner.u * 10 + inner.v)
    assert inner.u.shape == (5,)
    assert inner.v.shape[0] in (3, 4)


def test_four_finer_rays_surround_each_and_are_averaged_back():
    part, _ = rays(azimuth=(0.3,)).window((-0.3, 0.6), (-0.5, 0.1))
    fine = part.finer()
    picture = fine.u * 3 + fine.v
    assert torch.allclose(pooled(picture), part.u * 3 + part.v, atol=1e-6)
    assert fine.spacing == part.spacing / 2
    assert torch.allclose(fine.u.diff(), torch.tensor(fine.spacing))
    inner, cut = fine.window((0.0, 0.3), (-0.4, 0.0))
    assert torch.equal(picture[cut], inner.u * 3 + inner.v)


def test_the_soft_steps_have_their_ends_and_middles():
    assert soft(torch.tensor([-1.0, -0.05, 0.0, 0.05, 1.0]), 0.1).tolist() == [0, 0, 0.5, 1, 1]
    assert smooth(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0, 0.5, 1, 1]
    x = torch.linspace(-3, 3, 61)
    assert torch.allclose(bell(x), torch.exp(-(x**2)), atol=0.08)
    assert (bell(x)[x.abs() >= 2] == 0).all()
    assert [a.item() for a in unit(*torch.tensor([[3.0], [0.0], [4.0]]))] == pytest.approx([0.6, 0, 0.8])
