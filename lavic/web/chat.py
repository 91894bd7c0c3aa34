"""The chat's tab: any LLaVA, with an image, a temperature and top-p; the answer streams."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import gradio as gr
import torch
from transformers import TextIteratorStreamer

from lavic.catalogue.images import BrokenImage, open_image
from lavic.errors import UserError
from lavic.model.adapters.directory import load_adapter
from lavic.model.adapters.metadata import read_metadata
from lavic.model.checks import check_files
from lavic.model.loading import BaseModel, load_llava
from lavic.model.parts import unwrap
from lavic.model.processor import load_plain_processor
from lavic.web.messages import Message, message, sent, turn

NO_IMAGE, NO_PROMPT = "Please upload an image.", "Please enter a prompt."
SECONDS = 120.0  # without a new word, after which an answer is given up


@dataclass
class Sampling:
    """How tokens are chosen: at temperature 0 the likeliest, else by chance among the likeliest of `top_p`."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 128

    def options(self) -> dict[str, Any]:
        """As `generate` takes them."""
        if self.temperature <= 0:
            return {"do_sample": False, "max_new_tokens": self.max_new_tokens}
        return {
            "do_sample": True,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_new_tokens,
        }


def load_chat_model(name: str | None, adapter: Path | None, any_base: bool = False) -> tuple[Any, Any]:
    """A LLaVA with an adapter in place, and the processor that goes with them.

    Raises:
        UserError: one of them cannot be loaded, or the processor has no chat template.
    """
    about = read_metadata(adapter) if adapter else None
    base = name or (about.base if about else None)
    if base is None:
        raise UserError(f"The adapter {adapter} does not name its base; give it by --chat_model.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = load_plain_processor(str(adapter or base))
    checkpoint = BaseModel(base, any_base=any_base)
    check_files(checkpoint, processor, [adapter] if adapter else [])
    llava = load_llava(checkpoint, device)
    if adapter is not None:
        llava = unwrap(load_adapter(llava, adapter, trainable=False, any_base=any_base))
    if not (getattr(processor, "chat_template", None) or processor.tokenizer.chat_template):
        raise UserError(f"{adapter or base} has no chat template, so it cannot be talked to; give an instructed LLaVA.")
    return llava.eval(), processor


class Chatter:
    """Answers turns about images with any LLaVA; one answer at a time.

    Args:
        llava: the model.
        processor: its own, with a chat template.
    """

    def __init__(self, llava: Any, processor: Any) -> None:
        self.llava, self.processor, self._one_at_a_time = llava, processor, Lock()

    def stream(self, turns: list[tuple[str, str]], image: Path | None, sampling: Sampling) -> Iterator[str]:
        """The answer to the last of `turns` ((role, text), the image belongs to the first), longer at each step.

        Raises:
            UserError: the image cannot be decoded.
        """
        try:
            opened = open_image(image) if image else None
        except BrokenImage as broken:
            raise UserError(f"The image cannot be used ({broken}); upload another.") from None
        messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
        if opened is not None:
            messages[0]["content"] = [{"type": "image"}, *messages[0]["content"]]
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = self.processor(text=prompt, images=opened, return_tensors="pt").to(self.llava.device)
        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, timeout=SECONDS)
        streamer.decode_kwargs["skip_special_tokens"] = True
        options = {**inputs, **sampling.options(), "streamer": streamer}
        with self._one_at_a_time:
            thread = Thread(target=self._generate, args=(options, streamer), daemon=True)
            thread.start()
            said = ""
            for part in streamer:
                said += part
                yield said
            thread.join()

    @torch.inference_mode()
    def _generate(self, options: dict[str, Any], streamer: TextIteratorStreamer) -> None:
        try:
            self.llava.generate(**options)
        finally:
            streamer.end()  # or else a failure would leave the reader waiting

    def answer(
        self, said: Message | None, history: list[Message], seen: dict[str, Any], temperature: float, top_p: float
    ) -> Iterator[tuple[dict[str, Any] | None, list[Message], dict[str, Any]]]:
        """A turn in (text and files), the emptied input, the growing conversation and what was seen out."""
        text, files = sent(said)
        image = files[-1] if files else seen["image"]
        shown = [*history, *turn(text, files)]
        if image is None or not text:
            wrong = NO_IMAGE if image is None else NO_PROMPT
            yield said, [*shown, message("assistant", wrong)], seen
            return
        turns = [*(seen["turns"] if image == seen["image"] else ()), ("user", text)]
        reply = ""
        try:
            for reply in self.stream(turns, Path(image), Sampling(temperature, top_p)):
                yield None, [*shown, message("assistant", reply)], seen
        except UserError as error:
            yield None, [*shown, message("assistant", str(error))], seen
            return
        after = {"image": image, "turns": [*turns, ("assistant", reply)]}
        yield None, [*shown, message("assistant", reply)], after


def _nothing_yet() -> dict[str, Any]:
    return {"image": None, "turns": []}


def chat_tab(chatter: Chatter) -> None:
    """Puts the tab's components into the page that is being built."""
    seen = gr.State(_nothing_yet())
    conversation = gr.Chatbot([], show_label=False, height=430, elem_id="chat", render_markdown=False, buttons=[])
    said = gr.MultimodalTextbox(
        file_types=["image"], file_count="single", sources=["upload"], show_label=False, elem_id="ask",
        placeholder="Attach an image and ask about it",
    )  # fmt: skip
    with gr.Row():
        temperature = gr.Slider(0.0, 1.0, 0.7, step=0.1, label="Temperature (0: always the likeliest)", min_width=260)
        top_p = gr.Slider(0.1, 1.0, 0.9, step=0.1, label="Top-p", min_width=260)
    inputs = [said, conversation, seen, temperature, top_p]
    said.submit(chatter.answer, inputs, [said, conversation, seen], api_name="chat")
    conversation.clear(_nothing_yet, None, seen, api_visibility="private")
