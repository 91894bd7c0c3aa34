"""A person at the page, in a real browser: wishes, refinements, uploads good and bad, the chat; two widths."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="gradio is not installed (the extra web)")

from lavic.web.chat import chat_tab
from lavic.web.page import build_page, serve
from lavic.web.shop import WELCOME, Assistant, shop_tab
from tests.web.browser import CHROMIUM, Browser

if TYPE_CHECKING:
    from lavic.web.chat import Chatter

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")

SAID, ASKED = "document.querySelector('#said textarea')", "document.querySelector('#ask textarea')"
CHAT = "[...document.querySelectorAll('[role=tab]')].find(e => e.innerText == 'Chat' && e.offsetParent)"
EXAMPLE = "[...document.querySelectorAll('button')].find(e => e.innerText.trim() == 'Something red')"
CARDS = "document.querySelectorAll('.card')"
SHOWN = "[...document.querySelectorAll('.card img')].every(e => e.complete && e.naturalWidth && e.offsetWidth)"
OUTSIDE = """[...document.querySelectorAll('body *')].filter(e => e.offsetParent && e.getBoundingClientRect().width &&
  (e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)).map(e => e.outerHTML)"""
OVERLAPPING = """(boxes => boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => Math.min(a.right, b.right) -
  Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)).length)(
  [...document.querySelectorAll('#conversation, #chat, #said, #ask, .card, [role=tablist], [type=range]')]
  .filter(e => e.offsetParent).map(e => e.getBoundingClientRect()))"""


@pytest.fixture(scope="module")
def url(assistant: Assistant, chatter: "Chatter") -> Iterator[str]:
    """Both tabs, served on a free port by this process; all ten candidates are shown."""
    shop = Assistant(assistant.recommender, top=10)
    page = build_page("LaViC", {"Shop": lambda: shop_tab(shop, ["Something red"]), "Chat": lambda: chat_tab(chatter)})
    _, address, _ = serve(page, "127.0.0.1", 0, block=False)
    yield address
    page.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def answers(browser: Browser) -> int:
    """How many times the assistant has spoken, its welcome included."""
    return int(browser.look("document.querySelectorAll('#conversation .message.bot').length"))


def upload(browser: Browser, box: str, path: Path) -> None:
    """An image into a text box, until its thumbnail is there."""
    browser.choose_file(f"{box} input[type=file]", path)
    browser.wait_for(f"!!document.querySelector('{box} img')")


def fits(browser: Browser, screenshot: Path) -> None:
    """Nothing reaches over the sides of the window, and no part of the page lies over another."""
    browser.screenshot(screenshot)
    assert browser.look("document.documentElement.scrollWidth <= innerWidth"), screenshot
    assert browser.look(OUTSIDE) == [], screenshot
    assert browser.look(OVERLAPPING) == 0, screenshot


@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_finds_refines_shows_and_asks(browser: Browser, url: str, width: int, tmp_path: Path) -> None:
    """Screenshots stay in the test's folder (`--basetemp`) to be looked at."""
    red = tmp_path / "red.png"
    Image.new("RGB", (90, 120), "red").save(red)
    browser.open(url, width)
    browser.wait_for(f"!!{SAID} && document.body.innerText.includes({WELCOME!r})")
    fits(browser, tmp_path / "welcome.png")

    browser.type(SAID, "A kitchen towel, number 3")
    browser.wait_for(f"{CARDS}.length == 10")
    browser.wait_for(SHOWN)
    assert browser.look("document.querySelectorAll('.card img').length") > 0
    assert "Kitchen towel number" in browser.look(f"{CARDS}[0].innerText")
    assert answers(browser) == 2
    fits(browser, tmp_path / "wish.png")

    browser.type(SAID, "rather number 17")
    browser.wait_for(f"[...{CARDS}].some(e => e.innerText.includes('matches 17'))")
    assert "number 3" in browser.text(), "a refined wish is still the first one too"
    assert answers(browser) == 3

    upload(browser, "#said", red)
    browser.type(SAID, "like this")
    browser.wait_for(f"[...{CARDS}].some(e => e.innerText.includes('looks like the image'))")
    browser.wait_for("[...document.querySelectorAll('#conversation img')].some(e => e.naturalWidth)")
    fits(browser, tmp_path / "image.png")

    browser.click(CHAT)
    browser.wait_for(f"!!{ASKED} && !!{ASKED}.offsetParent")
    upload(browser, "#ask", red)
    browser.type(ASKED, "What is it?")
    browser.wait_for("document.querySelectorAll('#chat .message.bot').length == 1")
    browser.wait_for("document.querySelector('#chat .message.bot').innerText.trim().length > 0")
    fits(browser, tmp_path / "chat.png")


def test_an_example_is_put_into_the_field(browser: Browser, url: str) -> None:
    browser.open(url, 1280)
    browser.click(EXAMPLE)
    browser.wait_for(f"{SAID}.value == 'Something red'")


def test_bad_uploads_get_their_message(browser: Browser, url: str, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    (tmp_path / "huge.png").write_bytes(os.urandom(13_000_000))
    browser.open(url, 1280)
    upload(browser, "#said", tmp_path / "broken.jpg")
    browser.type(SAID, "like this")
    browser.wait_for("document.body.innerText.includes('broken.jpg cannot be used')")
    assert str(tmp_path.parent) not in browser.text(), "where a server keeps uploads is no visitor's business"
    assert "/gradio" not in browser.text()
    browser.choose_file("#said input[type=file]", tmp_path / "huge.png")
    browser.wait_for("document.body.innerText.includes('exceed the maximum allowed size of 12')")


def test_what_is_cleared_is_forgotten(browser: Browser, url: str) -> None:
    """Gradio's own button emptied the conversation on the screen, but not the wish."""
    browser.open(url, 1280)
    browser.type(SAID, "rather number 17")
    browser.wait_for(f"[...{CARDS}].some(e => e.innerText.includes('matches 17'))")
    browser.click("document.querySelector('#conversation [aria-label=Clear]')")
    browser.wait_for(f"{CARDS}.length == 0")
    browser.type(SAID, "kitchen towel")
    browser.wait_for(f"{CARDS}.length == 10")
    assert not browser.look(f"[...{CARDS}].some(e => e.innerText.includes('matches 17'))")
    assert not browser.look("!!document.querySelector('#conversation [aria-label=Share]')")
