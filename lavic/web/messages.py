"""Messages of a conversation as Gradio's chat takes them."""

from html import escape
from typing import Any

Message = dict[str, Any]


def message(role: str, text: str) -> Message:
    """A message whose text is shown as it is: the chat would take it for HTML."""
    return {"role": role, "content": escape(text, quote=False)}


def turn(text: str, files: list[str]) -> list[Message]:
    """What a person sent: images first, then the text."""
    images: list[Message] = [{"role": "user", "content": {"path": path}} for path in files]
    return [*images, message("user", text)] if text else images


def sent(said: dict[str, Any] | None) -> tuple[str, list[str]]:
    """The text and the files of a `MultimodalTextbox`."""
    return str((said or {}).get("text") or "").strip(), list((said or {}).get("files") or ())
