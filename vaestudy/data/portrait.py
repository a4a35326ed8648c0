"""A shaded head seen by parallel rays, drawn for many looks at once in plain vectorised torch.

The head and its parts are ellipsoids in the head's own frame (x to the picture's right, y up, z out of the face),
each met by one ray a sample in closed form. Eyes, brows and lips are painted on the skull, so they turn with it, and
the lamp falls on true normals. Each layer covers the last with a soft edge one sample wide, and is computed only in
the part of the picture that it can reach.
"""

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vaestudy.data.rays import Hit, Number, Rays, bell, dot, facing, smooth, soft, unit

SUPERSAMPLING = 2  # samples a pixel along each side
SKULL = (0.50, 0.66, 0.56)  # half axes; every other length is in the same unit
LEAN, BRIDGE = 0.28, 0.60  # lenses lean back from the nose; how far the bridge stands before the head's centre

Colour = Float[Tensor, "n 3 1 1"]


@dataclass(frozen=True)
class Look:
    """What n heads look like: angles in rad, lengths in head units, colours in [0, 1], otherwise 1 is average."""

    azimuth: Number
    elevation: Number
    lamp: Number  # its angle around the vertical: 0 in front, positive on the picture's right
    wide: Number
    tall: Number
    jaw: Number  # how much the head narrows to the chin
    neck: Number
    feature: Number  # size of eyes, brows, mouth and glasses
    eye_x: Number
    eye_y: Number
    eye_open: Number
    brow_y: Number
    brow_arch: Number
    brow_half: Number  # half the thickness
    nose: Number
    nose_long: Number
    mouth_y: Number
    mouth_wide: Number
    mouth_gap: Number
    smile: Number  # 0 is straight, 1 a smile
    lips: Number
    hair_cover: Number  # 0 or 1
    hair_volume: Number
    hair_front: Number  # height of the hairline over the brow,
    hair_side: Number  # over the ear,
    hair_temples: Number  # how much it rises at the temples,
    hair_part: Number  # where the hair parts,
    hair_rise: Number  # how much the hairline rises there,
    hair_drop: Number  # and how it falls on both sides
    hair_fringe: Number  # unevenness of the hairline
    hair_curl: Number
    hair_length: Number  # how far it hangs down behind the head; 0 for not at all
    glasses: Number  # half the rim's thickness; 0 for none
    skin: Colour
    hair: Colour
    iris: Colour
    cloth: Colour
    frame: Colour
    background: Colour

    def take(self, rows: slice) -> "Look":
        return Look(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw(look: Look, size: int, zoom: float) -> UInt8[Tensor, "n 3 {size} {size}"]:
    """Pictures of n heads, `size` pixels a side; at `zoom` 1 the sides are two head units long."""
    rays = Rays.through(look.azimuth, look.elevation, look.lamp, size * SUPERSAMPLING, zoom)
    picture = (0.98 + 0.14 * rays.v - 0.10 * rays.u * rays.u) * look.background
    for layer in (shoulders, back_hair, neck, ears, face, temples, hair, lenses):
        layer(picture, look, rays)
    rows = picture[:, :, 0::2] + picture[:, :, 1::2]
    pixels = rows[..., 0::2] + rows[..., 1::2]
    return pixels.mul_(255 / SUPERSAMPLING**2).round_().clamp_(0, 255).to(torch.uint8)


def tint(colour: Float[Tensor, "n _ 1 1"], *rgb: float) -> Colour:
    return colour * colour.new_tensor(rgb)[:, None, None]


def paint(picture, colour, cover):
    """Cover a picture (n, 3, h, w) with a colour, or another picture, where `cover` (n, h, w) says so."""
    if isinstance(colour, tuple):
        colour = picture.new_tensor(colour)[:, None, None]
    picture.lerp_(colour.expand_as(picture), cover[:, None].expand_as(picture))


def matt(normal, rays: Rays):
    """Brightness of a dull surface under one soft lamp and light from everywhere."""
    return facing(normal, tuple(0.58 * a for a in rays.light), 0.08).add_(0.46)


def pillar(side, rays: Rays):
    """Light on an upright cylinder, `side` from -1 to 1 across it."""
    x, _, z = rays.lamp
    side = side.clamp(-1, 1)
    return (side * x + (1 - side * side).sqrt() * z).clamp(min=0)


def shoulders(picture, look: Look, rays: Rays):
    rays, cut = rays.window((-2.0, 2.0), (-2.0, -0.76))
    top = -0.79 - 0.26 * rays.u**2 - 0.8 * (rays.u.abs() - 0.78).clamp(min=0) ** 2
    shade = 0.60 + 0.40 * pillar(rays.u / 1.15, rays) - 0.30 * bell(rays.u / 0.42, (rays.v + 0.80) / 0.20)
    paint(picture[cut], shade[:, None] * look.cloth, soft(top - rays.v, rays.spacing)[None])


def back_hair(picture, look: Look, rays: Rays):
    """Hair that hangs behind the head: it swings against the turn."""
    rays, cut = rays.window((-1.0, 1.0), (-2.0, 1.0))
    u, v = rays.u + 0.20 * look.azimuth, rays.v
    (width, height, _), (_, middle, _) = scalp(look)
    top = 0.98 * height
    half = width * (0.96 + 0.14 * smooth(0.3 - v)) + 0.012 * torch.sin(11 * v)
    half = half * (1 - ((v - middle) / top).clamp(0, 1) ** 2).sqrt()
    outline = soft(torch.minimum(half - u.abs(), middle + top - v), rays.spacing)
    shade = (0.36 + 0.42 * pillar(u / half.clamp(min=0.1), rays)) * (1 + 0.16 * seen(34.0, rays) * torch.cos(34 * u))
    hanging = soft(v + look.hair_length - 0.3 * u * u, 0.04) * (look.hair_length > 0)
    paint(picture[cut], shade[:, None] * look.hair, outline * hanging)


def seen(frequency: float, rays: Rays) -> float:
    """How much of a ripple survives in pixels: it fades before the samples would alias it."""
    return math.exp(-((frequency * rays.spacing) ** 2) / 6)


def neck(picture, look: Look, rays: Rays):
    rays, cut = rays.window((-0.55, 0.55), (-2.0, -0.2))
    u, v = rays.u, rays.v
    half = 0.235 * look.neck + 0.9 * (-v - 0.72).clamp(min=0) ** 2
    shade = (0.42 + 0.50 * pillar(u / half, rays)) * (1 - 0.40 * smooth((v + 0.90) * 3.5))
    collar, top = v + 0.97 - 1.6 * u * u, -0.3 - v  # the top is behind the chin
    cover = soft(half - u.abs(), rays.spacing) * soft(torch.minimum(collar, top), rays.spacing)
    paint(picture[cut], shade[:, None] * look.skin, cover)


def ears(picture, look: Look, rays: Rays):
    for side in (-1, 1):
        near, cut = rays.window((0.25, 0.70) if side > 0 else (-0.70, -0.25), (-0.26, 0.26))
        hit = near.meet((0.06, 0.135, 0.10), (side * SKULL[0] * look.wide, -0.02, -0.06))
        hollow = bell((near.at(hit.depth, 1) + 0.01) / 0.075, (near.at(hit.depth, 2) + 0.02) / 0.05)
        shade = matt(hit.normal, near) * (1 - 0.35 * hollow)
        paint(picture[cut], shade[:, None] * tint(look.skin, 1.0, 0.92, 0.90), soft(hit.inside, near.spacing))


@dataclass(frozen=True)
class Skin:
    """The face before light falls on it: where its points are, their colour, and the slope of its relief."""

    x: Tensor
    y: Tensor
    colour: Tensor
    slope_x: Tensor
    slope_y: Tensor
    spacing: float

    def cut(self, cut: tuple) -> "Skin":
        return Skin(*(a[cut] for a in (self.x, self.y, self.colour, self.slope_x, self.slope_y)), self.spacing)

    def paint(self, colour, cover):
        paint(self.colour, colour, cover)

    def swell(self, height, x, y, width, tall):
        """A smooth swelling (or a hollow) around (x, y) and around (-x, y)."""
        dx, dy = (self.x.abs() - x) * (1 / width), (self.y - y) * (1 / tall)
        slope = bell(dx, dy) * (-2 * height)
        self.slope_x.addcmul_(slope * (1 / width), dx * self.x.sign())
        self.slope_y.addcmul_(slope, dy * (1 / tall))


def face(picture, look: Look, rays: Rays):
    rays, cut = rays.window((-0.60, 0.60), (-0.76, 0.72))
    rays = rays.narrowed(look.jaw)
    skull = rays.meet((SKULL[0] * look.wide, SKULL[1] * look.tall, SKULL[2]))
    x, y = rays.at(skull.depth, 0), rays.at(skull.depth, 1)
    colour = look.skin.expand(-1, 3, *x.shape[1:]).clone()
    skin = Skin(x, y, colour, torch.zeros_like(x), torch.zeros_like(x), rays.spacing)
    mouth(skin.cut(rays.window((-0.60, 0.60), (-0.76, 0.26))[1]), look)
    eyes(skin.cut(rays.window((-0.60, 0.60), (-0.28, 0.50))[1]), look)
    x, y, z = skull.normal
    skull = replace(skull, normal=unit(x - skin.slope_x, y - skin.slope_y, z))
    outline = soft(skull.inside, rays.spacing)
    part, inner = rays.window((-0.58, 0.58), (-0.46, 0.36))
    nose(skull, outline, skin.cut(inner), look, part, inner)
    gloss = facing(skull.normal, rays.gleam)  # to the 16th power: Blinn 1977
    for _ in range(4):
        gloss.square_()
    skin.colour.mul_(matt(skull.normal, rays)[:, None]).add_(0.10 * gloss[:, None])
    paint(picture[cut], skin.colour, outline)


def nose(skull: Hit, outline: Tensor, skin: Skin, look: Look, rays: Rays, cut: tuple):
    """Let a nose rise from the skull, in place: it changes the normals, the outline and the colour."""
    size, drop, base = look.nose, 0.135 * look.nose_long, 0.50
    ridge = (0.060 * size, 0.20 * look.nose_long, 0.08)
    whole = rays.meet(ridge, (0.0, -0.065 * look.nose_long, base + 0.005), tilt=0.36)
    wings = rays.meet((0.112 * size, 0.048 * size, 0.05), (0.0, -0.045 - drop, base + 0.012))
    tip = rays.meet((0.072 * size, 0.062 * size, 0.075 + 0.025 * size), (0.0, -0.03 - drop, base + 0.045))
    for part in (wings, tip):
        # The nearer surface counts, and beside both outlines the nearer outline.
        nearer = part.depth - whole.depth + 3 * (part.inside.clamp(max=0) - whole.inside.clamp(max=0))
        whole = whole.turning(part, smooth(nearer * 20 + 0.5))
    edge = outline[cut]
    rise = smooth((whole.depth - skull.depth[cut]) * 14)
    over = torch.maximum(rise, 1 - edge) * soft(whole.inside, rays.spacing)
    skin.paint(tint(look.skin, 1.0, 0.92, 0.90), 0.6 * over)
    x, y = rays.at(whole.depth, 0), rays.at(whole.depth, 1)
    hole = bell((x.abs() - 0.045 * size) / 0.026, (y + 0.065 + drop) / 0.020)
    skin.paint(tint(look.skin, 0.30, 0.20, 0.18), (1.3 * hole).clamp(max=0.8) * over)
    edge.copy_(torch.maximum(edge, over))
    for a, b in zip(skull.normal, whole.normal, strict=True):
        a[cut].lerp_(b, over)


def eyes(skin: Skin, look: Look):
    f, w, aside = look.feature, skin.spacing, skin.x.abs()
    skin.swell(-0.040, look.eye_x, look.eye_y + 0.015, 0.13, 0.085)
    skin.swell(0.022, look.eye_x, look.brow_y, 0.19, 0.06)
    x = aside - look.eye_x
    y = skin.y - look.eye_y - 0.10 * x
    skin.paint(tint(look.skin, 0.72, 0.66, 0.64), 0.6 * bell(x / 0.12, (y - 0.03) / 0.085))
    across = (x * (1 / (0.108 * f))) ** 2
    lid = (1 - across).clamp(min=-1)
    upper, lower = 0.062 * f * look.eye_open * lid, -0.028 * f * (0.55 + 0.45 * look.eye_open) * lid
    crease = bell(x * (1 / (0.119 * f)), (y - upper) * (1 / (0.022 * f)) - 1.4)
    skin.paint(tint(look.skin, 0.62, 0.52, 0.50), 0.55 * crease)
    ball = soft(torch.minimum(upper - y, y - lower), w)
    skin.paint((0.95, 0.94, 0.93), ball)
    radius = (x * x + (y - 0.012 * f) ** 2).sqrt()
    for share, colour in ((1.0, 0.45 * look.iris), (0.8, look.iris), (0.45, (0.03, 0.03, 0.03))):
        skin.paint(colour, soft(0.050 * share * f - radius, w) * ball)
    glint = ((x * skin.x.sign() - 0.018 * f * look.lamp.sin()) ** 2 + (y - 0.032 * f) ** 2).sqrt()
    skin.paint((1.0, 1.0, 1.0), 0.9 * soft(0.013 * f - glint, w) * ball)
    lash = 0.3 * look.hair + 0.04
    skin.paint(lash, 0.90 * soft(0.0105 * f - (y - upper).abs(), w) * soft(1.12 - across, 0.15))
    skin.paint(lash, 0.45 * soft(0.004 * f - (y - lower).abs(), w) * soft(1.0 - across, 0.15))
    x = (aside - look.eye_x - 0.01) * (1 / (0.135 * f))
    y = skin.y - look.brow_y - 0.03 * f * look.brow_arch * (1 - (x - 0.05) ** 2)
    half = look.brow_half * f * (0.985 - 0.55 * x).clamp(0.25, 1.3)
    skin.paint(0.62 * look.hair + 0.05, 0.9 * soft(half - y.abs(), 1.5 * w) * soft(1 - x.abs(), 10 * w))


def mouth(skin: Skin, look: Look):
    f, w, y = look.feature, skin.spacing, skin.y
    skin.paint(tint(look.skin, 1.0, 0.78, 0.76), 0.35 * bell((skin.x.abs() - 0.27) / 0.13, (y + 0.17) / 0.12))
    skin.swell(0.035, 0.27, -0.14, 0.15, 0.13)
    skin.swell(0.035, 0.0, look.mouth_y, 0.20, 0.10)
    skin.swell(0.030, 0.0, -0.57, 0.13, 0.09)
    x = skin.x * (1 / (0.165 * f * look.mouth_wide * (1 + 0.14 * look.smile)))
    across = (1 - x * x).clamp(min=-0.5)
    middle = look.mouth_y + 0.065 * f * look.smile * (0.65 - across)
    gap = look.mouth_gap * f * across.clamp(min=0)
    upper, lower = middle + 0.35 * gap, middle - 0.65 * gap
    top = upper + 0.036 * f * look.lips * across * (1 - 0.30 * bell(x / 0.16))
    low = lower - 0.046 * f * look.lips * across * (1.4 - 0.4 * across)
    red = 0.45 * tint(look.skin, 1.0, 0.6, 0.6) + tint(0.55 + 0.45 * look.skin[:, :1], 0.40, 0.165, 0.176)
    skin.paint(red, 0.85 * soft(torch.minimum(top - y, y - low), w))
    skin.paint(0.82 * red, 0.50 * soft(torch.minimum(top - y, y - upper), w))
    dark, teeth = (0.28, 0.07, 0.08), (0.97, 0.95, 0.90)
    inside = soft(torch.minimum(upper - y, y - lower), w) * soft(gap - w, w)
    skin.paint(dark, inside)
    skin.paint(teeth, soft(y - upper + 0.034 * f, w) * soft(0.85 - x.abs(), 0.2) * inside)
    line = soft(0.006 * f - (y - middle).abs(), w) * soft(0.05 + across, 0.15)
    skin.paint(dark, 0.75 * line * (1 - inside))
    skin.paint(tint(look.skin, 0.62, 0.52, 0.50), 0.5 * bell(10 * x.abs() - 10.2, (y - middle) * (1 / (0.022 * f))))


def scalp(look: Look) -> tuple[tuple, tuple]:
    """Half axes and centre of the ellipsoid that hair fills."""
    grow = look.hair_volume
    axes = (SKULL[0] * look.wide + grow, SKULL[1] * look.tall + 0.9 * grow, SKULL[2] + 0.6 * grow)
    return axes, (0.0, 0.035 + 0.3 * grow, -0.05)


def hairline(look: Look, x, z):
    """The height where hair begins: it falls from the brow to above the ear as the head curves back."""
    aside = (x - look.hair_part).abs()
    line = look.hair_front + look.hair_rise * bell(aside / 0.16) - look.hair_drop * aside
    line = line + look.hair_temples * bell((x.abs() - 0.26) / 0.12)
    line = line + look.hair_fringe * (0.05 * torch.cos(21 * x) + 0.02 * torch.cos(47 * x))
    return look.hair_side + (line - look.hair_side) * (z / SKULL[2]).clamp(min=-0.2)


def hair(picture, look: Look, rays: Rays):
    rays, cut = rays.window((-0.75, 0.75), (-0.85, 1.0))
    rays = rays.narrowed(look.jaw)
    hit = rays.meet(*scalp(look))
    x, y, z = (rays.at(hit.depth, axis) for axis in range(3))
    edge = y - hairline(look, x, z)
    aside = x.abs()
    curl = torch.sin(11 * y - (8 * aside - 1)).addcmul_(torch.cos(19 * x), torch.sin(17 * y + 2)).mul_(look.hair_curl)
    outline = soft(hit.inside + 0.6 * curl, rays.spacing) * look.hair_cover
    view = picture[cut]
    shadow = soft(edge + 0.05, 0.08).mul_(outline)
    view.mul_(shadow.mul_(-0.17).add_(1)[:, None])
    # Strands run down from the crown and gleam where they lie across the halfway vector (Kajiya and Kay 1989).
    rise = hit.normal[1]
    along = (rays.gleam[1] - rise * dot(hit.normal, rays.gleam)).mul_((1.02 - rise * rise).rsqrt_())
    band = along.square_().neg_().add_(1).clamp_(min=0).square_().square_().square_()
    strands = 40 * aside + 14 * y
    ripple = torch.sin((0.45 * strands).add_(z, alpha=6)).mul_(0.05).add_(1)
    shade = ripple.add_(strands.sin_(), alpha=0.09 * seen(40.0, rays)).mul_(matt(hit.normal, rays))
    dull = (edge * 8).clamp_(0, 1).mul_(0.25).add_(curl, alpha=3.5).add_(0.75).mul_(shade)
    gleam = band.mul_(shade).mul_(0.16)
    colour = (dull[:, None] * look.hair).addcmul_(gleam[:, None], 0.5 - 0.3 * look.hair)
    paint(view, colour, soft(edge.add_(curl, alpha=0.5), rays.spacing).mul_(outline))


def temples(picture, look: Look, rays: Rays):
    """The rods of the glasses, from the rim to the ear, on the side turned to us and under the hair."""
    rays, cut = rays.window((-0.72, 0.72), (-0.18, 0.26))
    outer, height = look.eye_x + 0.140 * look.feature, look.eye_y + 0.02
    for side in (-1, 1):
        front = (side * outer, height, BRIDGE - LEAN * outer)
        back = (side * SKULL[0] * look.wide, height, torch.full_like(outer, -0.05))
        u, v, end_u, end_v = (dot(axis, point) for point in (front, back) for axis in (rays.right, rays.up))
        run, rise = end_u - u, end_v - v
        length = (run * run + rise * rise + 1e-6).sqrt()
        run, rise = run / length, rise / length
        off = (rays.v - v) * run - (rays.u - u) * rise
        on = (rays.u - u) * run + (rays.v - v) * rise
        rod = torch.minimum(look.glasses - off.abs(), torch.minimum(on, length - on))
        turned = (6 * side * rays.toward[0]).clamp(0, 1) * (look.glasses > 0)
        paint(picture[cut], look.frame, soft(rod, rays.spacing) * turned)


def lenses(picture, look: Look, rays: Rays):
    rays, cut = rays.window((-0.72, 0.72), (-0.30, 0.36))
    f, w, rim, worn = look.feature, rays.spacing, look.glasses, look.glasses > 0
    for side in (-1, 1):
        across, up, toward = (axis[2] + side * LEAN * axis[0] for axis in (rays.right, rays.up, rays.toward))
        depth = (BRIDGE / toward - rays.v * (up / toward)) - rays.u * (across / toward)
        x, y = side * rays.at(depth, 0), rays.at(depth, 1) - look.eye_y
        oval = ((x - look.eye_x) * (1 / (0.130 * f))) ** 2, ((y + 0.005) * (1 / (0.105 * f))) ** 2
        inside = (1 - (oval[0] ** 2 + oval[1] ** 2).sqrt().sqrt()) * (0.115 * f)
        bridge = torch.minimum(0.8 * rim - (y - 0.035 * f).abs(), torch.minimum(look.eye_x - 0.130 * f - x, x))
        paint(picture[cut], (0.85, 0.92, 1.0), 0.13 * worn * soft(inside, w))
        paint(picture[cut], look.frame, worn * soft(torch.maximum(rim - inside.abs(), bridge), w))
