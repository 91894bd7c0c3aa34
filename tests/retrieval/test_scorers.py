"""What is found in catalogues of many scripts, and that nothing is found where nothing matches."""

import numpy as np
import pytest

from lavic.retrieval.scorers import Bm25, top_k

CHINESE = ["红色帽子", "蓝色茶杯", "床头台灯", "木头椅子", "圆珠笔盒", "不锈钢锅", "羊毛毯子"]
CHINESE += ["夏天裙子", "运动鞋子", "折叠桌子", "水果刀具", "陶瓷饭碗"]
JAPANESE = ["赤い帽子", "青いティーカップ", "木製の椅子", "ボールペン", "ステンレス鍋", "ウールの毛布"]
JAPANESE += ["夏のワンピース"]
THAI = ["หมวกสีแดง", "ถ้วยชาสีฟ้า", "โคมไฟหัวเตียง", "เก้าอี้ไม้", "กล่องปากกา", "หม้อสแตนเลส", "ผ้าห่มขนสัตว์"]
KOREAN = ["빨간 모자", "파란 찻잔", "침대 램프", "나무 의자", "볼펜 상자", "냄비", "양털 담요"]
HINDI = ["लाल टोपी", "नीला कप", "लकड़ी की कुर्सी", "कलम का डिब्बा", "ऊनी कंबल"]


def places(documents: list[str], query: str, k: int = 3) -> list[int]:
    [found] = Bm25(documents).search([query], k)
    return [place for place, _ in found]


@pytest.mark.parametrize(
    ("documents", "query", "right"),
    [
        (CHINESE, "我想买一个夏天裙子送给妈妈", 7),
        (CHINESE, "有没有折叠的桌子", 9),
        (JAPANESE, "母に夏のワンピースを買いたいです", 6),
        (JAPANESE, "新しい椅子が欲しい", 2),
        (THAI, "อยากซื้อหมวกสีแดงให้แม่", 0),
        (THAI, "หาเก้าอี้ไม้ราคาถูก", 3),
        (KOREAN, "엄마에게 줄 의자를 사고 싶어요", 3),
        (HINDI, "मुझे एक टोपी चाहिए", 0),
        ([*KOREAN, "Red hat 帽子"], "I want a 帽子", 7),
        (["Cake 🎂", "Candle 🕯", "Card"], "🎂🎂", 0),
        (["Battery 9V", "Battery 12 V", "Lamp 60 W"], "12", 1),
        (list("帽杯灯椅笔"), "买一个灯", 2),
        (list("abxyz"), "x", 2),
        ([""] * 5 + ["Straw hat"], "STRAW", 5),
    ],
)
def test_the_named_item_is_found_first(documents: list[str], query: str, right: int) -> None:
    assert places(documents, query)[0] == right


@pytest.mark.parametrize("query", ["", "the and of", "!?…", "🎂", "zebra", "ὄνος", "\ud83d", "帽"])
def test_what_matches_nothing_finds_nothing(query: str) -> None:
    assert places(["Red hat", "Blue cup", "Green lamp"], query) == []


@pytest.mark.parametrize("documents", [["the", "of", ""], [""], ["…", "™"]])
def test_a_catalogue_without_words_is_searched_in_vain(documents: list[str]) -> None:
    assert places(documents, "red hat") == []


def test_fewer_than_k_where_fewer_match() -> None:
    assert places(["Red hat", "Blue cup", "Red lamp"], "something red", k=3) == [0, 2]


def test_top_k_is_exact_and_takes_the_first_of_equals() -> None:
    rng = np.random.default_rng(0)
    for k in (1, 5, 50):
        scores = rng.integers(0, 9, size=50).astype(np.float32)
        assert top_k(scores, k).tolist() == sorted(range(50), key=lambda i: (-scores[i], i))[:k]
