"""Draws the photographs of the invented products with Pillow, deterministically from their names."""

from __future__ import annotations

import math
from random import Random

from PIL import Image, ImageDraw

from lavic.demo.products import Look

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

RGB: dict[str, Colour] = {
    "red": (204, 36, 40),
    "orange": (240, 130, 30),
    "yellow": (243, 212, 50),
    "green": (30, 140, 70),
    "blue": (40, 80, 200),
    "purple": (120, 50, 160),
    "pink": (244, 140, 180),
    "brown": (112, 66, 32),
    "white": (250, 250, 250),
    "black": (18, 18, 18),
    "silver": (172, 176, 184),
    "wood": (190, 148, 100),
    "grass": (96, 168, 60),
    "stone": (150, 150, 150),
    "sand": (232, 218, 186),
    "slate": (52, 58, 66),
}


def draw(look: Look, noun: str, name: str, size: tuple[int, int] | None = None) -> Image.Image:
    """Draws `look` as an RGB image.

    Args:
        look: colour, pattern, form and background to show.
        noun: the product's kind, which decides details such as handles; see `Kind`.
        name: seeds the size, the position and the small irregularities.
        size: (width, height) in pixels; by default each side is between 400 and 500.
    """
    rng = Random(f"picture {name}")
    width, height = size or (rng.randint(400, 500), rng.randint(400, 500))
    image = _background(look.background, width, height, rng)
    reach = min(width, height) * rng.uniform(0.36, 0.43)
    centre_x = width / 2 + rng.uniform(-0.05, 0.05) * width
    centre_y = height / 2 + rng.uniform(-0.05, 0.05) * height
    box = (centre_x - reach, centre_y - reach, centre_x + reach, centre_y + reach)
    if look.form == "oval":
        box = (box[0], centre_y - 0.58 * reach, box[2], centre_y + 0.58 * reach)
    mask = Image.new("L", (width, height), 0)
    _outline(ImageDraw.Draw(mask), look.form, box, fill=255)
    _draw_behind(ImageDraw.Draw(image), noun, box)
    image.paste(_surface(look, width, height, rng), mask=mask)
    front = ImageDraw.Draw(image)
    _outline(front, look.form, box, outline=_shade(RGB[look.colour], 0.35), width=max(4, int(reach / 16)))
    _draw_in_front(front, noun, look, box)
    return image


def _background(name: str, width: int, height: int, rng: Random) -> Image.Image:
    base = RGB[name]
    image = Image.new("RGB", (width, height), base)
    pen = ImageDraw.Draw(image)
    if name == "wood":
        for y in range(0, height, 9):
            grain = _shade(base, rng.uniform(0.82, 1.1))
            pen.line((0, y, width, y + rng.randint(-4, 4)), fill=grain, width=3)
    elif name == "stone":
        for place in range(rng.randint(10, 40), max(width, height), 70):
            pen.line((place, 0, place, height), fill=_shade(base, 0.7), width=4)
            pen.line((0, place, width, place), fill=_shade(base, 0.7), width=4)
    else:
        length = {"grass": 12, "sand": 1, "slate": 3}[name]
        for _ in range(900):
            x, y = rng.randrange(width), rng.randrange(height)
            ink = _shade(base, rng.uniform(0.7, 1.3))
            pen.line((x, y, x + rng.randint(-2, 2), y - length), fill=ink, width=2)
    return image


def _surface(look: Look, width: int, height: int, rng: Random) -> Image.Image:
    """The product's material over the whole canvas; the form is cut out of it."""
    sheet = Image.new("RGB", (width, height), RGB[look.colour])
    if look.pattern == "plain":
        return sheet
    pen, ink = ImageDraw.Draw(sheet), RGB[look.accent]
    step = rng.randint(40, 52)
    shift = rng.randrange(step)
    if look.pattern == "stripes":
        for x in range(shift - step, width, step):
            pen.rectangle((x, 0, x + 0.38 * step, height), fill=ink)
    elif look.pattern == "checks":
        for row, y in enumerate(range(shift - step, height, step)):
            for x in range(shift - step + (row % 2) * step, width, 2 * step):
                pen.rectangle((x, y, x + step - 1, y + step - 1), fill=ink)
    elif look.pattern == "zigzags":
        for y in range(shift - step, height + step, step):
            points = [(x, y + (index % 2) * 0.6 * step) for index, x in enumerate(range(0, width + 24, 24))]
            pen.line(points, fill=ink, width=int(0.28 * step))
    else:
        mark = _star if look.pattern == "stars" else _dot
        for row, y in enumerate(range(shift - step, height + step, step)):
            for x in range(shift - step + (row % 2) * step // 2, width + step, step):
                mark(pen, x, y, 0.3 * step, ink)
    return sheet


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, ink: Colour) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _star(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, ink: Colour) -> None:
    corners = []
    for corner in range(10):
        distance = 1.5 * radius if corner % 2 == 0 else 0.55 * radius
        angle = math.pi * corner / 5 - math.pi / 2
        corners.append((x + distance * math.cos(angle), y + distance * math.sin(angle)))
    pen.polygon(corners, fill=ink)


def _outline(
    pen: ImageDraw.ImageDraw,
    form: str,
    box: Box,
    fill: int | None = None,
    outline: Colour | None = None,
    width: int = 1,
) -> None:
    left, top, right, bottom = box
    if form in ("round", "oval"):
        pen.ellipse(box, fill=fill, outline=outline, width=width)
    elif form == "square":
        pen.rectangle(box, fill=fill, outline=outline, width=width)
    else:
        corners = [((left + right) / 2, top), (right, bottom), (left, bottom)]
        pen.polygon(corners, fill=fill, outline=outline, width=width)


def _draw_behind(pen: ImageDraw.ImageDraw, noun: str, box: Box) -> None:
    """What sticks out from under the product: fringe and handles."""
    left, top, right, bottom = box
    middle = (top + bottom) / 2
    grey: Colour = (90, 84, 80)
    if noun == "rug":
        for y in range(int(top) + 4, int(bottom), 9):
            pen.line((left - 12, y, right + 12, y), fill=grey, width=2)
    elif noun == "tray":
        for x in (left, right):
            pen.ellipse((x - 22, middle - 34, x + 22, middle + 34), outline=grey, width=8)


def _draw_in_front(pen: ImageDraw.ImageDraw, noun: str, look: Look, box: Box) -> None:
    """What lies on the product: a clock's hands, piping and borders."""
    left, top, right, bottom = box
    x, y, reach = (left + right) / 2, (top + bottom) / 2, (bottom - top) / 2
    dark = _shade(RGB[look.colour], 0.5)
    if noun in ("cushion", "mat"):
        gap, width = (6, 3) if noun == "cushion" else (18, 9)
        _outline(pen, look.form, (left + gap, top + gap, right - gap, bottom - gap), outline=dark, width=width)
    elif noun == "clock":
        pen.line((x, y, x, y - 0.7 * reach), fill=dark, width=5)
        pen.line((x, y, x + 0.5 * reach, y + 0.1 * reach), fill=dark, width=7)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue
