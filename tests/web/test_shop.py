"""The assistant's page over real HTTP: wishes, uploads good and bad, many at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

gradio_client = pytest.importorskip("gradio_client")

from lavic.web.page import build_page, serve  # noqa: E402
from lavic.web.shop import LONGEST_TURN, Assistant, shop_tab  # noqa: E402


@pytest.fixture(scope="module")
def url(assistant: Assistant) -> Iterator[str]:
    """The page, served on a free port by this process."""
    page = build_page("Shop", {"Shop": lambda: shop_tab(assistant, ["Something red"])})
    _, address, _ = serve(page, "127.0.0.1", 0, block=False)
    yield address
    page.close()


def client(url: str) -> Any:
    return gradio_client.Client(url, verbose=False, download_files=False)


def ask(visitor: Any, text: str, *files: Path) -> tuple[list[Any], str]:
    """The conversation after a turn, and the cards."""
    said = {"text": text, "files": [gradio_client.handle_file(str(path)) for path in files]}
    _, conversation, products = visitor.predict(said, [], api_name="/recommend")
    return conversation, products


def last_words(conversation: list[Any]) -> str:
    content = conversation[-1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def test_a_wish_gives_cards_with_images_and_titles_as_they_are(url: str) -> None:
    conversation, products = ask(client(url), "A kitchen towel, [red] or <b>blue</b>")
    assert products.count('class="card"') == 8
    assert "data:image/jpeg;base64," in products
    assert "Kitchen towel number" in products
    assert "&lt;b&gt;blue" in str(conversation[-2])
    assert last_words(conversation).startswith("I would take \u201cKitchen towel number")


def test_an_image_is_part_of_the_wish(url: str, tmp_path: Path) -> None:
    Image.new("RGB", (90, 120), "red").save(tmp_path / "like.png")
    _, products = ask(client(url), "like this, but blue", tmp_path / "like.png")
    assert "looks like" in products


@pytest.mark.parametrize("what", ["broken", "empty", "cut"])
def test_a_bad_image_gets_a_sentence(url: str, tmp_path: Path, what: str) -> None:
    path = tmp_path / "bad.jpg"
    Image.new("RGB", (300, 300), "red").save(path)
    path.write_bytes({"broken": b"no image", "empty": b"", "cut": path.read_bytes()[:-200]}[what])
    conversation, products = ask(client(url), "like this", path)
    assert products == ""
    assert "image" in last_words(conversation)
    assert "Traceback" not in last_words(conversation)


def test_an_image_of_too_many_pixels_gets_a_sentence(url: str, tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_001)).save(tmp_path / "huge.png")
    conversation, products = ask(client(url), "like this", tmp_path / "huge.png")
    assert (products, "image" in last_words(conversation)) == ("", True)


def test_an_upload_over_the_bound_is_refused(url: str, tmp_path: Path) -> None:
    body = {"files": ("large.png", b"0" * 13_000_000, "image/png")}
    assert httpx.post(f"{url}gradio_api/upload", files=body, timeout=60).status_code == 413


def test_nothing_said_or_too_much_gets_a_sentence(url: str) -> None:
    visitor = client(url)
    assert "write what you are looking for" in last_words(ask(visitor, "  ")[0])
    assert f"{LONGEST_TURN} or fewer" in last_words(ask(visitor, "towel " * 1000)[0])


def test_a_wish_that_nothing_matches_says_so(url: str) -> None:
    conversation, products = ask(client(url), "\u6bdb\u5dfe")
    assert products == ""
    assert "Nothing in the catalogue" in last_words(conversation)


def test_later_turns_refine_the_wish_and_visitors_do_not_share_it(url: str) -> None:
    one, other = client(url), client(url)
    first = ask(one, "kitchen towel")[1]
    ask(one, "number 3 please")
    assert ask(other, "kitchen towel")[1] == first


def test_twenty_at_once_are_all_answered(url: str) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: ask(client(url), f"kitchen towel number {n}")[1], range(20)))
    assert all(answer.count('class="card"') == 8 for answer in answers)


def test_the_page_names_no_other_host(url: str) -> None:
    page = httpx.get(url, timeout=60).text
    assert "fonts.googleapis.com" not in page
