"""Curves drawn with braille dots, for a terminal or a log."""

from collections.abc import Sequence
from itertools import pairwise

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille cell, by row and column
Point = tuple[float, float]


def draw(line: Sequence[Point], marks: Sequence[Point], width: int, height: int) -> list[str]:
    """Rows of text: one curve of braille dots, marks as ●, the range at the left and below.

    Args:
        line: points (x, y) joined by straight lines, sorted by x.
        marks: single points on the same axes.
        width: characters of a row, the labels included.
        height: rows, the x labels included.
    """
    points = [*line, *marks]
    if not points or width < 20 or height < 3:
        return []
    (x_low, x_high), (y_low, y_high) = (_range([p[i] for p in points]) for i in (0, 1))
    labels = {0: f"{y_high:.4g}", height - 2: f"{y_low:.4g}"}
    margin = max(len(text) for text in labels.values()) + 1
    columns, rows = width - margin - 1, height - 1

    def cell(point: Point, across: int, down: int) -> tuple[int, int]:
        x = (point[0] - x_low) / (x_high - x_low) * (across - 1)
        y = (y_high - point[1]) / (y_high - y_low) * (down - 1)
        return round(x), round(y)

    dots = [[0] * columns for _ in range(rows)]
    for column, row in _joined([cell(p, 2 * columns, 4 * rows) for p in line]):
        dots[row // 4][column // 2] |= DOTS[row % 4][column % 2]
    canvas = [[chr(0x2800 + bits) if bits else " " for bits in row] for row in dots]
    for column, row in (cell(p, columns, rows) for p in marks):
        canvas[row][column] = "●"
    drawn = [f"{labels.get(i, ''):>{margin}}│{''.join(row).rstrip()}" for i, row in enumerate(canvas)]
    left, right = f"{x_low:g}", f"{x_high:g}"
    return [*drawn, " " * (margin + 1) + left + right.rjust(columns - len(left))]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _joined(cells: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The cells and those on the straight lines between them."""
    found = list(cells[:1])
    for (x0, y0), (x1, y1) in pairwise(cells):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        found += [(x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps)) for i in range(1, steps + 1)]
    return found
