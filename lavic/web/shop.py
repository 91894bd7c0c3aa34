"""The assistant's tab: the conversation at the left, product cards at the right, a turn at a time."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypedDict

import gradio as gr

from lavic.errors import UserError
from lavic.tasks.recommendation.recommender import Recommended, seeker_turns
from lavic.web.cards import cards
from lavic.web.messages import Message, message, sent, turn

LONGEST_TURN = 2000  # letters
WELCOME = "What are you looking for? Describe it, or attach an image of something like it."


class Ranks(Protocol):
    """What the tab asks of a recommender."""

    def rank(self, conversation: str, image: Path | None = None) -> list[Recommended]:
        """The products for a conversation, the likeliest first."""


class Wish(TypedDict):
    """One visitor's conversation so far: what was said, and the image that came with it."""

    turns: list[str]
    image: str | None


def _nothing_yet() -> Wish:
    return Wish(turns=[], image=None)


class Assistant:
    """Answers a visitor's turns; one at a time goes through the model.

    Args:
        recommender: ranks the catalogue's products.
        top: products shown.
    """

    def __init__(self, recommender: Ranks, top: int = 10) -> None:
        self.recommender, self.top, self._one_at_a_time = recommender, top, Lock()

    def answer(
        self, said: dict[str, Any] | None, history: list[Message], wish: Wish
    ) -> tuple[None, list[Message], Wish, str]:
        """A turn in (text and files), the emptied input, the conversation, the wish and the cards out.

        What is wrong with a turn is said in the conversation, and the turn is not part of the wish.
        """
        text, files = sent(said)
        shown = [*history, *turn(text, files)]
        try:
            wish, products = self._next(text, files, wish)
        except UserError as error:
            return None, [*shown, message("assistant", str(error))], wish, ""
        best = products[0]
        reply = f"I would take “{best.title}” ({best.probability:.0%} among {len(products)} candidates)."
        if len(products) > 1:
            reply += " The others are beside it; tell me what should be different."
        return None, [*shown, message("assistant", reply)], wish, cards(products[: self.top])

    def _next(self, text: str, files: Sequence[str], wish: Wish) -> tuple[Wish, list[Recommended]]:
        if not text and not files:
            raise UserError("Please write what you are looking for, or attach an image.")
        if len(text) > LONGEST_TURN:
            raise UserError(f"That turn has {len(text)} letters; please say it in {LONGEST_TURN} or fewer.")
        turns = [*wish["turns"], text or "Something like this image."]
        image = files[-1] if files else wish["image"]
        with self._one_at_a_time:
            products = self.recommender.rank(seeker_turns(turns), Path(image) if image else None)
        return Wish(turns=turns, image=image), products


def _start_anew() -> tuple[list[Message], Wish, str]:
    return [message("assistant", WELCOME)], _nothing_yet(), ""


def shop_tab(assistant: Assistant, examples: Sequence[str]) -> None:
    """Puts the tab's components into the page that is being built."""
    wish = gr.State(_nothing_yet())
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            welcome: list[Any] = [message("assistant", WELCOME)]
            conversation = gr.Chatbot(
                welcome, show_label=False, height=430, elem_id="conversation", render_markdown=False, buttons=[],
            )  # fmt: skip
            said = gr.MultimodalTextbox(
                file_types=["image"], file_count="single", sources=["upload"], placeholder="Something red with stripes",
                show_label=False, elem_id="said",
            )  # fmt: skip
            again = gr.Button("New conversation", size="sm")
            if examples:
                gr.Examples([{"text": text, "files": []} for text in examples], said, label="For example")
        with gr.Column(scale=3, min_width=320):
            products = gr.HTML(elem_id="products")
    said.submit(
        assistant.answer, [said, conversation, wish], [said, conversation, wish, products], api_name="recommend"
    )
    for anew in (again.click, conversation.clear):
        anew(_start_anew, None, [conversation, wish, products], api_visibility="private")
