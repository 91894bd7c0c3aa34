"""Line charts as inline SVG, for a page that needs nothing else."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 28, 30
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706")
Point = tuple[float, float]


def chart(title: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """One `<svg>`: every named series as a line (single points as dots), with ticks, a legend and hover titles.

    Points that are not finite are left out; nothing at all gives an empty string.
    """
    series = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in lines.items()}
    series = {name: points for name, points in series.items() if points}
    every = [point for points in series.values() for point in points]
    if not every:
        return ""
    x_ticks, y_ticks = (ticks([p[i] for p in every]) for i in (0, 1))

    def place(point: Point) -> tuple[float, float]:
        across = (point[0] - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (point[1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>']
    for tick in y_ticks:
        _, y = place((x_ticks[0], tick))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for tick in x_ticks:
        x, _ = place((tick, y_ticks[0]))
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{tick:g}</text>')
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if len(points) <= 60:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">'
                f"<title>{escape(name)} at step {point[0]:g}: {point[1]:.6g}</title></circle>"
                for (x, y), point in zip(placed, points, strict=True)
            ]
        label = f'<text x="{WIDTH - RIGHT - 130 * number}" y="16" text-anchor="end" style="fill:{colour}">'
        parts.append(f"{label}{escape(name)}</text>")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def ticks(values: Sequence[float], count: int = 5) -> list[float]:
    """About `count` round numbers, from at most the lowest value to at least the highest."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - max(abs(low) / 10, 1e-9), high + max(abs(high) / 10, 1e-9)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    width = next(m * power for m in (1, 2, 5, 10) if raw <= m * power)
    first, last = math.floor(low / width), math.ceil(high / width)
    return [float(f"{i * width:.12g}") for i in range(first, last + 1)]
