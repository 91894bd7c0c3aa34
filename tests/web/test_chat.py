"""The chat's tab over real HTTP, on a tiny LLaVA with a chat template."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image

gradio_client = pytest.importorskip("gradio_client")

from lavic.commands import web  # noqa: E402
from lavic.web import chat, page  # noqa: E402
from lavic.web.chat import NO_IMAGE, NO_PROMPT, Chatter, Sampling, chat_tab  # noqa: E402
from lavic.web.page import build_page, serve  # noqa: E402
from tests.web.test_shop import client, last_words  # noqa: E402


@pytest.fixture(scope="module")
def url(chatter: Chatter) -> Iterator[str]:
    built = build_page("Chat", {"Chat": lambda: chat_tab(chatter)})
    _, address, _ = serve(built, "127.0.0.1", 0, block=False)
    yield address
    built.close()


def drawn(folder: Path, colour: str) -> Path:
    path = folder / f"{colour}.png"
    Image.new("RGB", (200, 120), colour).save(path)
    return path


def ask(url: str, text: str, *files: Path) -> list[Any]:
    """The conversation after a turn, decoded greedily."""
    said = {"text": text, "files": [gradio_client.handle_file(str(path)) for path in files]}
    _, conversation = client(url).predict(said, [], 0.0, 0.9, api_name="/chat")
    return list(conversation)


def test_an_answer_grows_and_is_generates_own(chatter: Chatter, tmp_path: Path) -> None:
    image = drawn(tmp_path, "red")
    parts = list(chatter.stream([("user", "What is it?")], image, Sampling(0.0, max_new_tokens=12)))
    assert len(parts) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(parts))
    prompt = "user: <image>What is it?\nassistant:"
    inputs = chatter.processor(text=prompt, images=Image.open(image), return_tensors="pt")
    with torch.inference_mode():
        ids = chatter.llava.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    assert parts[-1] == chatter.processor.tokenizer.decode(ids, skip_special_tokens=True)


def test_another_image_gives_other_first_logits(chatter: Chatter, tmp_path: Path) -> None:
    logits = []
    for colour in ("red", "green"):
        image = Image.open(drawn(tmp_path, colour))
        inputs = chatter.processor(text="user: <image>?\nassistant:", images=image, return_tensors="pt")
        logits.append(chatter.llava(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-4


def test_the_page_answers(url: str, tmp_path: Path) -> None:
    conversation = ask(url, "<b>What</b> is it?", drawn(tmp_path, "red"))
    assert conversation[-1]["role"] == "assistant"
    assert "&lt;b&gt;" in str(conversation[-2])


def test_what_is_missing_or_broken_gets_its_message(url: str, tmp_path: Path) -> None:
    assert last_words(ask(url, "What is it?")) == NO_IMAGE
    assert last_words(ask(url, " ", drawn(tmp_path, "red"))) == NO_PROMPT
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    assert "cannot be used" in last_words(ask(url, "What is it?", tmp_path / "broken.jpg"))
    Image.new("1", (20_000, 10_001)).save(tmp_path / "huge.png")  # 200 megapixels in 30 KB
    assert "cannot be used (image too large" in last_words(ask(url, "What is it?", tmp_path / "huge.png"))


def test_twenty_at_once_are_all_answered(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "Sampling", partial(Sampling, max_new_tokens=6))
    image = drawn(tmp_path, "red")
    alone = last_words(ask(url, "What is number 3?", image))
    with ThreadPoolExecutor(20) as pool:
        told = list(pool.map(lambda n: ask(url, f"What is number {n}?", image), range(20)))
    assert [len(conversation) for conversation in told] == [len(told[0])] * 20
    assert all(conversation[-1]["role"] == "assistant" for conversation in told)
    assert all(f"number {n}?" in str(conversation) for n, conversation in enumerate(told))
    assert last_words(told[3]) == alone  # each has the answer to its own question


def test_the_command_listens_on_this_machine_alone_and_shares_nothing(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[bool] = []

    def listening() -> set[Any]:
        return {c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN}

    before = listening()

    def look(built: Any, host: str, port: int, share: bool) -> None:
        shared.append(share)
        serve(built, host, 0, block=False)
        opened = listening() - before
        built.close()
        assert {address.ip for address in opened} == {"127.0.0.1"}

    monkeypatch.setattr(chat, "load_chat_model", lambda *_: (chatter.llava, chatter.processor))
    monkeypatch.setattr(page, "serve", look)
    assert web.main(["--chat_model", "any", "--port", "0"]) == 0
    assert shared == [False]
