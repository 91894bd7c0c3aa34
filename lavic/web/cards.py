"""Products as HTML cards: image, title, probability, and why they were candidates."""

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from PIL import Image

from lavic.catalogue.images import BrokenImage, open_image
from lavic.tasks.recommendation.recommender import Recommended

SIDE = 320  # pixels of a card's image at most

CSS = """
.cards {display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 12px}
.card {border: 1px solid var(--border-color-primary); border-radius: 10px; overflow: hidden; min-width: 0;
  background: var(--background-fill-primary); display: flex; flex-direction: column}
.card img, .card .none {width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff}
.card .none {display: flex; align-items: center; justify-content: center; color: #888}
.card .said {padding: 8px 10px; overflow-wrap: anywhere}
.card .title {font-weight: 600; font-size: .92em; line-height: 1.25}
.card .small {font-size: .78em; opacity: .75; margin-top: 4px}
.card .bar {height: 6px; border-radius: 3px; background: var(--border-color-primary); margin-top: 6px}
.card .bar div {height: 100%; border-radius: 3px; background: var(--color-accent)}
"""


def cards(products: Sequence[Recommended]) -> str:
    """The products in the order given, as one block of HTML that loads nothing else."""
    return f'<div class="cards">{"".join(_card(product) for product in products)}</div>'


def _card(product: Recommended) -> str:
    percent = f"{product.probability:.1%}"
    image = thumbnail(product.image) if product.image else ""
    title = escape(product.title)
    shown = f'<img src="{image}" alt="{title}">' if image else '<div class="none">no image</div>'
    why = f'<div class="small">{escape(product.why)}</div>' if product.why else ""
    return (
        f'<div class="card">{shown}<div class="said"><div class="title">{title}</div>'
        f'<div class="small">{escape(product.item)} · {percent} of the candidates</div>'
        f'<div class="bar"><div style="width: {percent}"></div></div>{why}</div></div>'
    )


def thumbnail(path: str) -> str:
    """An image file as a small JPEG in a data URL; "" where it cannot be decoded. A replaced file is seen."""
    try:
        stat = Path(path).stat()
    except OSError:
        return ""
    return _thumbnail(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=2048)
def _thumbnail(path: str, state: tuple[int, ...]) -> str:
    try:
        image = open_image(Path(path))
    except BrokenImage:
        return ""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
