"""What is searched in texts of many scripts."""

import pytest

from lavic.retrieval.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Women's T-shirt, size 7 (don't iron)", ["women", "t", "shirt", "size", "7", "don", "iron"]),
        ("The of AND", []),
        ("Straße GROSS Ｆｕｌｌ café_noir", ["strasse", "gross", "full", "café", "noir"]),
        ("हिन्दी की किताब", ["हिन्दी", "की", "किताब"]),
        ("帽", ["帽"]),
        ("帽子", ["帽", "子", "帽子"]),
        ("XLの帽", ["xl", "の", "帽"]),
        ("빨간 모자를", ["빨간", "모자", "자를", "모자를"]),
        ("🎂❤️ cake", ["🎂", "❤", "cake"]),
        ("— … \ufe0f", []),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
