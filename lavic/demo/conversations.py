"""Conversations whose wish only the images can answer, in the published form of stage 2's data."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypedDict

from lavic.demo.products import Kind, Look, Product

CANDIDATES = 10


class Conversation(TypedDict):
    """One line of a `{train,valid,test}.jsonl` file; the keys are LaViC's."""

    context: str
    context_items: list[str]
    gt: str
    gt_items: list[str]
    candidates_st: list[str]
    candidates_gpt_large: list[str]


def make_conversations(products: Sequence[Product], count: int, seed: str) -> list[Conversation]:
    """Makes `count` conversations about `products`, each with ten candidates of one kind.

    Since the candidates share their kind, titles differ in brand and size only, which no wish mentions. One
    in ten asks for a colour alone and has two right answers; in one in twenty the right answer is missing
    from the candidates, as happens in the published files.
    """
    rng = Random(f"conversations {seed}")
    by_kind: dict[str, list[Product]] = {}
    for product in products:
        by_kind.setdefault(product.kind.name, []).append(product)
    kinds = sorted(by_kind)
    return [_converse(by_kind[kinds[index % len(kinds)]], index, rng) for index in range(count)]


def _converse(shelf: Sequence[Product], index: int, rng: Random) -> Conversation:
    wanted = rng.choice(shelf)
    same_colour = [p for p in shelf if p.look.colour == wanted.look.colour and p is not wanted]
    by_colour_alone = index % 10 == 3 and bool(same_colour)
    right = [wanted, rng.choice(same_colour)] if by_colour_alone else [wanted]
    if by_colour_alone:
        wrong = [p for p in shelf if p.look.colour != wanted.look.colour]
    else:
        wrong = [p for p in shelf if p is not wanted]
    listed = [] if index % 20 == 11 else right
    return {
        "context": converse(wanted.kind, wanted.look, by_colour_alone, rng),
        "context_items": [],
        "gt": f"I would take [this one](https://www.example.com/dp/{wanted.asin}), it looks just like that.",
        "gt_items": [product.asin for product in right],
        "candidates_st": _candidates(listed, wrong, rng),
        "candidates_gpt_large": _candidates(listed, wrong, rng),
    }


def _candidates(listed: Sequence[Product], wrong: Sequence[Product], rng: Random) -> list[str]:
    chosen = [*listed, *rng.sample(list(wrong), CANDIDATES - len(listed))]
    rng.shuffle(chosen)
    return [product.asin for product in chosen]


def wish(look: Look, by_colour_alone: bool, rng: Random) -> str:
    """What somebody says who wants `look`, such as "something red with stripes"."""
    if by_colour_alone:
        return f"something {look.colour}"
    if look.pattern == "plain":
        return rng.choice((f"something plain {look.colour}", f"something {look.colour} and plain"))
    return rng.choice(
        (
            f"something {look.colour} with {look.pattern}",
            f"something with {look.pattern}, in {look.colour}",
            f"{look.pattern} on something {look.colour}",
        )
    )


def converse(kind: Kind, look: Look, by_colour_alone: bool, rng: Random) -> str:
    """A conversation in which somebody wishes for a product of `kind` that has this `look`."""
    room, noun = kind.room, kind.noun
    want = wish(look, by_colour_alone, rng)
    submission = rng.choice(
        (
            f"I am looking for {want} for the {room}. Any ideas?",
            f"Can anyone recommend a {noun}? I would love {want} for our {room}.",
            f"We have moved and the {room} needs a new {noun}. My wife wants {want}.",
            f"Please help me to find {want}. It is for the {room}.",
        )
    )
    turns = [f"<submission>{submission}</submission>"]
    if rng.random() < 0.5:
        reply = rng.choice(
            (
                "What do you want to spend?",
                f"There are many nice ones. A {noun} should be easy to clean, I think.",
                "I had the same problem last year.",
            )
        )
        turns.append(f"<comment>{reply}</comment>")
    return "\n".join(turns) + "\n"
