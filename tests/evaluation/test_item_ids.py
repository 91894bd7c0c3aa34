"""An ID is whole or it is not that ID: whatever characters it holds, and whatever stands around it."""

import random

import pytest

from lavic.evaluation.item_ids import named_item

CATALOGUE = {"SKU-1", "SKU-1-XL", "SKU-10", "B01", "B0123", "item five", "item five deluxe", "4711.2", "C+", "x/1/2"}


@pytest.mark.parametrize(
    ("text", "candidates", "right"),
    [
        ("SKU-1-XL", ["SKU-1", "SKU-10"], "SKU-1-XL"),
        ("I recommend SKU-1-XL.", ["SKU-1"], "SKU-1-XL"),
        ("I would take B0123!", ["B01"], "B0123"),
        ("item five deluxe, please", ["item five"], "item five deluxe"),
        ("item five. Deluxe!", ["item five"], "item five"),
        ("4711.2", ["4711"], "4711.2"),
        ("C+", ["C"], "C+"),
        ("x/1/2", ["x/1", "1", "2"], "x/1/2"),
        ("SKU-1 or SKU-1-XL", ["SKU-1"], "SKU-1"),
    ],
)
def test_a_longer_id_of_the_catalogue_is_the_one_named(text: str, candidates: list[str], right: str) -> None:
    assert named_item(text, candidates, CATALOGUE) == right
    assert named_item(text, candidates, sorted(CATALOGUE)) == right


@pytest.mark.parametrize("joiner", ["-", "_", ".", "/", ":", "+", "#", "&", "@", "=", "~", "--", "‑", "–", "·", ""])
def test_a_part_of_an_unknown_id_names_nothing(joiner: str) -> None:
    for end in ("XL", "2", "é", "ß"):
        longer = f"SKU-1{joiner}{end}"
        assert named_item(longer, ["SKU-1"]) is None, longer
        assert named_item(f"I would take {longer}, it fits.", ["SKU-1"]) is None, longer
        if joiner not in (":", "="):  # before an ID these may be a label's
            assert named_item(longer, [end]) is None, longer
    assert named_item(f"A{joiner}b{joiner}C9", ["b"]) is None or joiner in (":", "=")


@pytest.mark.parametrize(
    "item", ["SKU-1", "4711.2", "a_b", "x/1/2", "item five", "shop:9", "C+", "É-1", "品-1", "#7", "(9)"]
)
@pytest.mark.parametrize(
    "around",
    [
        "{}", " {}\n", "{}.", "{}!", "{}?", "{}, of course", "{}; it fits", "{}: because", "({})", "[{}]", "{{{}}}",
        "<{}>", "'{}'", '"{}"', "“{}”", "«{}»", "`{}`", "**{}**", "*{}*", "_{}_", "~~{}~~", "- {}", "# {}", "1. {} -",
        "{}…", "{}... or so", "{}— it fits", "{} - it fits", "Take {}.", "{}'s colour", "[{}](link)", "|{}|", "{}\t",
        "Item {} is right", "{}。", "{}、",
    ],
)  # fmt: skip
def test_punctuation_brackets_and_markdown_leave_an_id_whole(item: str, around: str) -> None:
    assert named_item(around.format(item), [item, item + "-2"]) == item


def test_labels_and_web_addresses() -> None:
    assert named_item("ID:B01", ["B01"]) == "B01"
    assert named_item("id=B01", ["B01"]) == "B01"
    assert named_item("shop:9", ["9", "shop:10"]) is None, "the candidates' own IDs hold a colon"
    assert named_item("https://www.shop.com/dp/B01/ref=x?y=2", ["B01"]) == "B01"
    assert named_item("see [this](https://shop.com/dp/B01)", ["B01"]) == "B01"
    assert named_item("https://shop.com/dp/B0123", ["B01"]) is None
    assert named_item("https://shop.com/p/1", ["https://shop.com/p", "https://shop.com/p/1"]) == "https://shop.com/p/1"
    assert named_item("https://shop.com/p/1", ["https://shop.com/p"]) is None


def test_case_and_marks_make_another_id() -> None:
    assert named_item("sku-1", ["SKU-1"]) is None
    assert named_item("ab1 Ab1", ["Ab1", "aB1"]) == "Ab1"
    assert named_item("E\u0301", ["E"]) is None


def test_an_id_at_the_end_of_a_text_that_a_limit_cut_off_is_not_known_to_be_whole() -> None:
    assert named_item("SKU-1", ["SKU-1", "SKU-1-XL"], ended=False) is None
    assert named_item("SKU-1 fits", ["SKU-1"], ended=False) == "SKU-1"
    assert named_item("", ["SKU-1"]) is None


def test_random_ids_are_found_alone_and_never_within_others() -> None:
    rng = random.Random(0)
    for _ in range(300):
        items = ["".join(rng.choices("AB1-._/ +", k=rng.randint(1, 4))).strip() for _ in range(8)]
        items = [item for item in items if any(map(str.isalnum, item))]
        for item in items:
            assert named_item(item, items) == item
            assert named_item(f"x{item}x", [item]) is None
            assert named_item(f"x-{item}-x", [item]) is None or " " in item
