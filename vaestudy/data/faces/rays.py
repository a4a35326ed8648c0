"""Parallel rays that look at a turned head, and the ellipsoids that they meet."""

import math
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float
from torch import Tensor

LAMP_HEIGHT = 0.45  # rad above the horizon

Number = Float[Tensor, "n 1 1"]
Vector = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Rays:
    """Parallel rays through samples (u, v) of the picture: right, up and toward us are its axes in the head's frame."""

    u: Tensor
    v: Tensor
    right: Vector
    up: Vector
    toward: Vector
    lamp: Vector  # where light comes from, in the picture's frame
    light: Vector  # the same in the head's frame, and the direction halfway between it and our eye
    gleam: Vector
    spacing: float  # from ray to ray

    @classmethod
    def through(cls, azimuth: Number, elevation: Number, lamp: Number, side: int, zoom: float) -> "Rays":
        """One ray through each pixel; the head and the lamp stand at these angles (rad)."""
        steps, spacing = ((torch.arange(side) + 0.5) * (2 / side) - 1) / zoom, 2 / side / zoom
        sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
        right = (cos_a, torch.zeros_like(cos_a), sin_a)
        up = (-sin_e * sin_a, cos_e, sin_e * cos_a)
        toward = (-cos_e * sin_a, -sin_e, cos_e * cos_a)
        height = torch.full_like(lamp, math.sin(LAMP_HEIGHT))
        lamp = (lamp.sin() * math.cos(LAMP_HEIGHT), height, lamp.cos() * math.cos(LAMP_HEIGHT))
        light = tuple(dot(lamp, axes) for axes in zip(right, up, toward, strict=True))
        gleam = unit(*(a + b for a, b in zip(light, toward, strict=True)))
        return cls(steps, -steps[:, None], right, up, toward, lamp, light, gleam, spacing)

    def window(self, across: tuple[float, float], along: tuple[float, float]) -> tuple["Rays", tuple]:
        """The rays with u in `across` and v in `along`, and the index that cuts the same part from pictures."""
        left, right = torch.searchsorted(self.u, torch.tensor(across)).tolist()
        bottom, top = torch.searchsorted(-self.v[:, 0], -torch.tensor(along)).tolist()
        rows, columns = slice(top, bottom), slice(left, right)
        return replace(self, u=self.u[columns], v=self.v[rows]), (..., rows, columns)

    def finer(self) -> "Rays":
        """Four rays in place of each."""
        shift = self.spacing / 4
        u = torch.stack([self.u - shift, self.u + shift], dim=1).reshape(-1)
        v = torch.stack([self.v + shift, self.v - shift], dim=1).reshape(-1, 1)
        return replace(self, u=u, v=v, spacing=self.spacing / 2)

    def narrowed(self, jaw: Number) -> "Rays":
        """Rays spread below the eyes, so that the skull seen through them narrows to a chin."""
        below = (-self.v - 0.05).clamp(min=0)
        return replace(self, u=self.u * (1 + jaw * below * below))

    def at(self, depth: Tensor, axis: int) -> Tensor:
        """One coordinate, in the head's frame, of the points at this depth."""
        return (self.u * self.right[axis] + self.up[axis] * self.v).addcmul_(depth, self.toward[axis])

    def meet(self, axes: tuple, centre: tuple = (0.0, 0.0, 0.0), tilt: float = 0.0) -> "Hit":
        """The near side of the ellipsoid with these half axes and centre, its top tilted back by `tilt` rad."""
        a, b, c = (torch.as_tensor(axis, dtype=torch.float32) for axis in axes)
        sin, cos = torch.tensor([math.sin(tilt), math.cos(tilt)])
        # The matrix that turns and scales the ellipsoid to the unit sphere, without its zeros.
        xx, yy, yz, zy, zz = 1 / a, cos / b, sin / b, -sin / c, cos / c
        # Where the ellipsoid is the unit sphere, a ray is right u + up v + toward depth - centre.
        vectors = (self.right, self.up, tuple(-x for x in centre), self.toward)
        *rest, toward = local = [(xx * x, yy * y + yz * z, zy * y + zz * z) for x, y, z in vectors]
        # Their products hold the quadratic in depth; completing its square leaves the half chord.
        scale = 1 / dot(toward, toward)
        along = [dot(toward, p) * scale for p in rest]
        pairs = combinations_with_replacement(zip(rest, along, strict=True), 2)
        uu, uv, u1, vv, v1, one = (dot(p, q) * scale - s * t for (p, s), (q, t) in pairs)
        (au, av, a1), u, v = along, self.u, self.v
        chord = (u * -uu - (2 * uv * v + 2 * u1)).mul_(u).add_(scale - one - (vv * v + 2 * v1) * v)
        depth = chord.clamp(min=0).sqrt_().sub_(u * au + (av * v + a1))
        # The squared half chord, negative where a ray misses, becomes a distance by its slope at the outline.
        slopes = [(xx * x, yy * y + zy * z, yz * y + zz * z) for x, y, z in local]
        return Hit(self, depth, chord.mul_(0.5 * (uu * scale).rsqrt()), slopes)


@dataclass(frozen=True)
class Hit:
    """Where rays meet a surface: depth, distance inside its outline, and what its normals follow from."""

    rays: Rays
    depth: Tensor
    inside: Tensor
    slopes: list[Vector]

    def normal(self) -> Vector:
        """Unit normals in the head's frame."""
        u, v = self.rays.u, self.rays.v
        rows = zip(*self.slopes, strict=True)
        return unit(*((u * a + (b * v + d)).addcmul_(self.depth, c) for a, b, d, c in rows))


def pooled(samples):
    """Means of 2x2 neighbours: what finer rays saw, pixel by pixel."""
    rows = samples[..., 0::2, :] + samples[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]).mul_(0.25)


def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(x: Tensor, y: Tensor, z: Tensor) -> Vector:
    """The vector scaled, in place, to length 1."""
    scale = (x * x).addcmul_(y, y).addcmul_(z, z).clamp_(min=1e-9).rsqrt_()
    return x.mul_(scale), y.mul_(scale), z.mul_(scale)


def facing(normal: Vector, direction: Vector, offset: float = 0.0) -> Tensor:
    """The cosine between a normal and a direction, plus an offset, as 0 where it is negative."""
    x, y, z = direction
    return (normal[0] * x + offset).addcmul_(normal[1], y).addcmul_(normal[2], z).clamp_(min=0)


def soft(distance, width):
    """How much of a sample of this width lies inside an edge at this distance (positive inside)."""
    return (distance * (1 / width)).add_(0.5).clamp_(0, 1)


def bell(x, y=0.0):
    """Nearly exp(-x² - y²), but exactly 0 from radius 2 on: true tails are numbers that processors are slow with."""
    near = (x * x + y * y).mul_(-0.25).add_(1).clamp_(min=0)
    return near.square_().square_()


def smooth(x):
    """A smooth step from 0 to 1 as x goes from 0 to 1."""
    x = x.clamp(0, 1)
    return (3 - 2 * x).mul_(x).mul_(x)
