"""A shaded head seen by parallel rays, drawn for many looks at once in plain vectorised torch.

The head and its parts are ellipsoids in the head's own frame (x to the picture's right, y up, z out of the face), each
met by one ray a pixel in closed form, with an edge one pixel wide. What is finer (features, hairline, glasses) is drawn
with four rays a pixel and averaged. Each layer covers the last, computed only where it can reach.
"""

import math
from types import SimpleNamespace as Look

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vaestudy.data.faces.rays import Rays, bell, dot, facing, pooled, smooth, soft, unit

SKULL = (0.50, 0.66, 0.56)  # half axes; every other length is in the same unit
LEAN, BRIDGE = 0.28, 0.60  # lenses lean back from the nose; how far the bridge stands before the head's centre


def draw(look: Look, size: int, zoom: float) -> UInt8[Tensor, "n 3 {size} {size}"]:
    """Pictures of n heads, `size` pixels a side; at `zoom` 1 the sides are two head units long.

    `look` says what the heads look like: numbers (n, 1, 1), which are angles in rad, lengths in head units or, where 1
    is average, factors; and colours (n, 3, 1, 1) in [0, 1]. `render._look` makes it.
    """
    rays = Rays.through(look.azimuth, look.elevation, look.lamp, size, zoom)
    picture = (0.98 + 0.14 * rays.v - 0.10 * rays.u * rays.u) * look.background
    for layer in (shoulders, back_hair, neck, ears, face, temples, hair, lenses):
        layer(picture, look, rays)
    return picture.mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def tint(colour: Float[Tensor, "n _ 1 1"], *rgb: float) -> Float[Tensor, "n 3 1 1"]:
    return colour * colour.new_tensor(rgb)[:, None, None]


def paint(picture, colour, cover):
    """Cover a picture (n, 3, h, w) with a colour, or another picture, where `cover` (n, h, w) says so."""
    if isinstance(colour, tuple):
        colour = picture.new_tensor(colour)[:, None, None]
    picture.lerp_(colour, cover[:, None])


def matt(normal, rays: Rays):
    """Brightness of a dull surface under one soft lamp and light from everywhere."""
    return facing(normal, tuple(0.58 * a for a in rays.light), 0.08).add_(0.46)


def pillar(side, rays: Rays):
    """Light on an upright cylinder, `side` from -1 to 1 across it."""
    x, _, z = rays.lamp
    side = side.clamp(-1, 1)
    return (side * x + (1 - side * side).sqrt() * z).clamp(min=0)


def shoulders(picture, look: Look, rays: Rays):
    top = -0.79 - 0.26 * rays.u**2 - 0.8 * (rays.u.abs() - 0.78).clamp(min=0) ** 2
    shade = 0.60 + 0.40 * pillar(rays.u / 1.15, rays) - 0.30 * bell(rays.u / 0.42, (rays.v + 0.80) / 0.20)
    paint(picture, shade[:, None] * look.cloth, soft(top - rays.v, rays.spacing)[None])


def back_hair(picture, look: Look, rays: Rays):
    """Hair that hangs behind the head: it swings against the turn."""
    u, v = rays.u + 0.20 * look.azimuth, rays.v
    (width, height, _), (_, middle, _) = scalp(look)
    top = 0.98 * height
    half = width * (0.96 + 0.14 * smooth(0.3 - v)) + 0.012 * torch.sin(11 * v)
    half = half * (1 - ((v - middle) / top).clamp(0, 1) ** 2).sqrt()
    outline = soft(torch.minimum(half - u.abs(), middle + top - v), rays.spacing)
    shade = (0.36 + 0.42 * pillar(u / half.clamp(min=0.1), rays)) * (1 + 0.16 * seen(34.0, rays) * torch.cos(34 * u))
    hanging = soft(v + look.hair_length - 0.3 * u * u, 0.04) * (look.hair_length > 0)
    paint(picture, shade[:, None] * look.hair, outline * hanging)


def seen(frequency: float, rays: Rays) -> float:
    """How much of a ripple survives in pixels: it fades before they would alias it."""
    return math.exp(-((frequency * rays.spacing) ** 2) / 6)


def neck(picture, look: Look, rays: Rays):
    u, v = rays.u, rays.v
    half = 0.235 * look.neck + 0.9 * (-v - 0.72).clamp(min=0) ** 2
    shade = (0.42 + 0.50 * pillar(u / half, rays)) * (1 - 0.40 * smooth((v + 0.90) * 3.5))
    collar, top = v + 0.97 - 1.6 * u * u, -0.3 - v  # the top is behind the chin
    cover = soft(half - u.abs(), rays.spacing) * soft(torch.minimum(collar, top), rays.spacing)
    paint(picture, shade[:, None] * look.skin, cover)


def ears(picture, look: Look, rays: Rays):
    for side in (-1, 1):
        near, cut = rays.window((0.25, 0.70) if side > 0 else (-0.70, -0.25), (-0.26, 0.26))
        ear = near.meet((0.06, 0.135, 0.10), (side * SKULL[0] * look.wide, -0.02, -0.06))
        hollow = bell((near.at(ear.depth, 1) + 0.01) / 0.075, (near.at(ear.depth, 2) + 0.02) / 0.05)
        shade = matt(ear.normal(), near) * (1 - 0.35 * hollow)
        paint(picture[cut], shade[:, None] * tint(look.skin, 1.0, 0.92, 0.90), soft(ear.inside, near.spacing))


def face(picture, look: Look, rays: Rays):
    rays, cut = rays.window((-0.60, 0.60), (-0.76, 0.72))
    axes = (SKULL[0] * look.wide, SKULL[1] * look.tall, SKULL[2])
    colour = look.skin.expand(-1, 3, len(rays.v), len(rays.u)).clone()
    part, inner = rays.window((-0.58, 0.58), (-0.72, 0.50))
    colour[inner] = features(look, part.finer(), axes)
    rays = rays.narrowed(look.jaw)
    skull = rays.meet(axes)
    x, y = rays.at(skull.depth, 0), rays.at(skull.depth, 1)
    aside = x.abs()
    paint(colour, tint(look.skin, 1.0, 0.78, 0.76), 0.35 * bell((aside - 0.27) / 0.13, (y + 0.17) / 0.12))
    socket = bell((aside - look.eye_x) / 0.12, (y - look.eye_y - 0.03) / 0.085)
    colour.mul_(1 - 0.18 * socket[:, None])
    normal, outline = relief(look, skull.normal(), x, y), soft(skull.inside, rays.spacing)
    nose(look, rays, skull.depth, normal, outline, colour)
    gloss = facing(normal, rays.gleam)  # to the 16th power: Blinn 1977
    gloss = gloss.square_().square_().square_().square_()
    colour.mul_(matt(normal, rays)[:, None]).add_(0.10 * gloss[:, None])
    paint(picture[cut], colour, outline)


def relief(look: Look, normal, x, y):
    """The skull's normals with what ellipsoids lack: sockets, brows, cheeks, lips and chin."""
    aside, sign = x.abs(), x.sign()
    slope_x, slope_y = torch.zeros_like(x), torch.zeros_like(y)
    for height, middle_x, middle_y, width, tall in (
        (-0.040, look.eye_x, look.eye_y + 0.015, 0.13, 0.085),
        (0.022, look.eye_x, look.brow_y, 0.19, 0.06),
        (0.035, 0.27, -0.14, 0.15, 0.13),
        (0.035, 0.0, look.mouth_y, 0.20, 0.10),
        (0.030, 0.0, -0.57, 0.13, 0.09),
    ):
        dx, dy = (aside - middle_x) * (1 / width), (y - middle_y) * (1 / tall)
        slope = bell(dx, dy).mul_(-2 * height)
        slope_x.addcmul_(slope, dx, value=1 / width)
        slope_y.addcmul_(slope, dy, value=1 / tall)
    return unit(normal[0] - slope_x * sign, normal[1] - slope_y, normal[2])


def nose(look: Look, rays: Rays, depth, normal, outline, colour):
    """Let a nose rise from the skull at this depth: it changes the normals, the outline and the colour in place."""
    size, drop, base = look.nose, 0.135 * look.nose_long, 0.50
    ridge = (0.060 * size, 0.20 * look.nose_long, 0.08)
    whole = rays.meet(ridge, (0.0, -0.065 * look.nose_long, base + 0.005), tilt=0.36)
    wings = rays.meet((0.112 * size, 0.048 * size, 0.05), (0.0, -0.045 - drop, base + 0.012))
    tip = rays.meet((0.072 * size, 0.062 * size, 0.075 + 0.025 * size), (0.0, -0.03 - drop, base + 0.045))
    front, inside, bent = whole.depth, whole.inside, whole.normal()
    for part in (wings, tip):
        # The nearer surface counts, and beside both outlines the nearer outline.
        nearer = smooth((part.depth - front + 3 * (part.inside.clamp(max=0) - inside.clamp(max=0))) * 20 + 0.5)
        front, inside = torch.lerp(front, part.depth, nearer), torch.maximum(inside, part.inside)
        bent = tuple(torch.lerp(a, b, nearer) for a, b in zip(bent, part.normal(), strict=True))
    over = torch.maximum(smooth((front - depth) * 14), 1 - outline) * soft(inside, rays.spacing)
    paint(colour, tint(look.skin, 1.0, 0.92, 0.90), 0.6 * over)
    hole = bell((rays.at(front, 0).abs() - 0.045 * size) / 0.026, (rays.at(front, 1) + 0.065 + drop) / 0.020)
    paint(colour, tint(look.skin, 0.30, 0.20, 0.18), (1.3 * hole).clamp(max=0.8) * over)
    torch.maximum(outline, over, out=outline)
    for a, b in zip(normal, bent, strict=True):
        a.lerp_(b, over)


def features(look: Look, rays: Rays, axes: tuple):
    """Skin with eyes, brows and mouth painted on it, before light falls there, four rays averaged to a pixel."""
    colour = look.skin.expand(-1, 3, len(rays.v), len(rays.u)).clone()
    for feature, along in ((mouth, (-0.72, 0.0)), (eyes, (-0.24, 0.50))):
        part, cut = rays.window((-0.58, 0.58), along)
        part = part.narrowed(look.jaw)
        depth = part.meet(axes).depth
        feature(colour[cut], look, part.at(depth, 0), part.at(depth, 1), part.spacing)
    return pooled(colour)


def eyes(skin, look: Look, x, y, w: float):
    f, side, aside = look.feature, x.sign(), x.abs()
    across, up = aside - look.eye_x, y - look.eye_y
    up = up - 0.10 * across
    square = (across * (1 / (0.108 * f))) ** 2
    lid = (1 - square).clamp(min=-1)
    upper, lower = 0.062 * f * look.eye_open * lid, -0.028 * f * (0.55 + 0.45 * look.eye_open) * lid
    crease = bell(across * (1 / (0.119 * f)), (up - upper) * (1 / (0.022 * f)) - 1.4)
    paint(skin, tint(look.skin, 0.62, 0.52, 0.50), 0.55 * crease)
    ball = soft(torch.minimum(upper - up, up - lower), w)
    paint(skin, (0.95, 0.94, 0.93), ball)
    radius = (across * across + (up - 0.012 * f) ** 2).sqrt()
    for share, colour in ((1.0, 0.45 * look.iris), (0.8, look.iris), (0.45, (0.03, 0.03, 0.03))):
        paint(skin, colour, soft(0.050 * share * f - radius, w) * ball)
    glint = ((across * side - 0.018 * f * look.lamp.sin()) ** 2 + (up - 0.032 * f) ** 2).sqrt()
    paint(skin, (1.0, 1.0, 1.0), 0.9 * soft(0.013 * f - glint, w) * ball)
    lash = 0.3 * look.hair + 0.04
    paint(skin, lash, 0.90 * soft(0.0105 * f - (up - upper).abs(), w) * soft(1.12 - square, 0.15))
    paint(skin, lash, 0.45 * soft(0.004 * f - (up - lower).abs(), w) * soft(1.0 - square, 0.15))
    across = (aside - look.eye_x - 0.01) * (1 / (0.135 * f))
    up = y - look.brow_y - 0.03 * f * look.brow_arch * (1 - (across - 0.05) ** 2)
    half = look.brow_half * f * (0.985 - 0.55 * across).clamp(0.25, 1.3)
    brow = soft(half - up.abs(), 1.5 * w) * soft(1 - across.abs(), 10 * w)
    paint(skin, 0.62 * look.hair + 0.05, 0.9 * brow)


def mouth(skin, look: Look, x, y, w: float):
    f = look.feature
    x = x * (1 / (0.165 * f * look.mouth_wide * (1 + 0.14 * look.smile)))
    across = (1 - x * x).clamp(min=-0.5)
    middle = look.mouth_y + 0.065 * f * look.smile * (0.65 - across)
    gap = look.mouth_gap * f * across.clamp(min=0)
    upper, lower = middle + 0.35 * gap, middle - 0.65 * gap
    top = upper + 0.036 * f * look.lips * across * (1 - 0.30 * bell(x / 0.16))
    low = lower - 0.046 * f * look.lips * across * (1.4 - 0.4 * across)
    red = 0.45 * tint(look.skin, 1.0, 0.6, 0.6) + tint(0.55 + 0.45 * look.skin[:, :1], 0.40, 0.165, 0.176)
    paint(skin, red, 0.85 * soft(torch.minimum(top - y, y - low), w))
    paint(skin, 0.82 * red, 0.50 * soft(torch.minimum(top - y, y - upper), w))
    dark, teeth = (0.28, 0.07, 0.08), (0.97, 0.95, 0.90)
    inside = soft(torch.minimum(upper - y, y - lower), w) * soft(gap - w, w)
    paint(skin, dark, inside)
    paint(skin, teeth, soft(y - upper + 0.034 * f, w) * soft(0.85 - x.abs(), 0.2) * inside)
    line = soft(0.006 * f - (y - middle).abs(), w) * soft(0.05 + across, 0.15)
    paint(skin, dark, 0.75 * line * (1 - inside))
    corner = bell(10 * x.abs() - 10.2, (y - middle) * (1 / (0.022 * f)))
    paint(skin, tint(look.skin, 0.62, 0.52, 0.50), 0.5 * corner)


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
    cover, edge, curl, outline = locks(look, rays.finer().narrowed(look.jaw))
    rays = rays.narrowed(look.jaw)
    hit = rays.meet(*scalp(look))
    normal = hit.normal()
    view = picture[cut]
    view.mul_(1 - 0.17 * (soft(edge + 0.05, 0.08) * outline)[:, None])  # its shadow on the brow
    # Strands run down from the crown and gleam where they lie across the halfway vector (Kajiya and Kay 1989).
    rise = normal[1]
    along = (rays.gleam[1] - rise * dot(normal, rays.gleam)).mul_((1.02 - rise * rise).rsqrt_())
    band = along.square_().neg_().add_(1).clamp_(min=0).square_().square_().square_()
    x, y, z = (rays.at(hit.depth, axis) for axis in range(3))
    strands = 40 * x.abs() + 14 * y
    ripple = 1 + 0.09 * seen(40.0, rays) * torch.sin(strands) + 0.05 * torch.sin(0.45 * strands + 6 * z)
    shade = matt(normal, rays) * ripple
    dull = shade * (0.75 + 3.5 * curl + 0.25 * (edge * 8).clamp(0, 1))
    colour = (dull[:, None] * look.hair).addcmul_((0.16 * shade * band)[:, None], 0.5 - 0.3 * look.hair)
    paint(view, colour, cover)


def locks(look: Look, rays: Rays):
    """How hair covers the scalp, how far it reaches over the hairline, its curl, and how much of it is head."""
    hit = rays.meet(*scalp(look))
    x, y, z = (rays.at(hit.depth, axis) for axis in range(3))
    edge = y - hairline(look, x, z)
    curl = torch.sin(11 * y - 8 * x.abs() + 1).addcmul_(torch.cos(19 * x), torch.sin(17 * y + 2)).mul_(look.hair_curl)
    outline = soft(hit.inside + 0.6 * curl, rays.spacing).mul_(look.hair_cover)
    cover = soft(edge + 0.5 * curl, rays.spacing).mul_(outline)
    return pooled(torch.stack([cover, edge, curl, outline]))


def temples(picture, look: Look, rays: Rays):
    """The rods of the glasses, from the rim to the ear, on the side turned to us and under the hair."""
    rays, cut = rays.window((-0.72, 0.72), (-0.18, 0.26))
    fine = rays.finer()
    outer, height = look.eye_x + 0.140 * look.feature, look.eye_y + 0.02
    for side in (-1, 1):
        front = (side * outer, height, BRIDGE - LEAN * outer)
        back = (side * SKULL[0] * look.wide, height, torch.full_like(outer, -0.05))
        u, v, end_u, end_v = (dot(axis, point) for point in (front, back) for axis in (rays.right, rays.up))
        run, rise = end_u - u, end_v - v
        length = (run * run + rise * rise + 1e-6).sqrt()
        run, rise = run / length, rise / length
        off = (fine.v - v) * run - (fine.u - u) * rise
        on = (fine.u - u) * run + (fine.v - v) * rise
        rod = torch.minimum(look.glasses - off.abs(), torch.minimum(on, length - on))
        turned = (6 * side * rays.toward[0]).clamp(0, 1) * (look.glasses > 0)
        paint(picture[cut], look.frame, pooled(soft(rod, fine.spacing)) * turned)


def lenses(picture, look: Look, rays: Rays):
    rays, cut = rays.window((-0.72, 0.72), (-0.30, 0.36))
    fine = rays.finer()
    f, w, rim, worn = look.feature, fine.spacing, look.glasses, look.glasses > 0
    for side in (-1, 1):
        across, up, toward = (axis[2] + side * LEAN * axis[0] for axis in (rays.right, rays.up, rays.toward))
        depth = (BRIDGE / toward - fine.v * (up / toward)) - fine.u * (across / toward)
        x, y = side * fine.at(depth, 0), fine.at(depth, 1) - look.eye_y
        oval = ((x - look.eye_x) * (1 / (0.130 * f))) ** 2, ((y + 0.005) * (1 / (0.105 * f))) ** 2
        inside = (1 - (oval[0] ** 2 + oval[1] ** 2).sqrt().sqrt()) * (0.115 * f)
        bridge = torch.minimum(0.8 * rim - (y - 0.035 * f).abs(), torch.minimum(look.eye_x - 0.130 * f - x, x))
        glass, frame = pooled(soft(inside, w)), pooled(soft(torch.maximum(rim - inside.abs(), bridge), w))
        paint(picture[cut], (0.85, 0.92, 1.0), 0.13 * worn * glass)
        paint(picture[cut], look.frame, worn * frame)
