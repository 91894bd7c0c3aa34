"""Each benchmark's file is read as it is published: every entry is a question or is listed with its reason."""

import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lavic.catalogue.images import open_image
from lavic.catalogue.questions.annotations import Annotations
from lavic.catalogue.questions.question import Truth, VisualQuestion
from lavic.catalogue.questions.reading import QuestionFile
from lavic.catalogue.questions.stored_images import StoredImages
from lavic.errors import UserError
from lavic.evaluation.answer_metrics import METRICS
from lavic.files.rejected import Rejected
from tests.catalogue.questions import published


def write(path: Path, value: Any) -> Path:
    data = json.dumps(value).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def file_of(path: Path, **more: Any) -> QuestionFile:
    return QuestionFile(path, StoredImages(path.parent / "stored"), **more)


def read(path: Path, **more: Any) -> list[VisualQuestion]:
    found = list(file_of(path, **more).read())
    assert all(isinstance(one, VisualQuestion) for one in found), found
    return [one for one in found if isinstance(one, VisualQuestion)]


FORMS = [
    ("v2_OpenEnded_mscoco_val2014_questions.json", published.VQA_QUESTIONS, "VQAv2 or OK-VQA", 3),
    ("aokvqa_v1p0_val.json", published.A_OKVQA, "A-OKVQA", 2),
    ("TextVQA_0.5.1_val.json", published.TEXTVQA, "TextVQA", 1),
    ("val_balanced_questions.json", published.GQA, "GQA", 2),
    ("val.json", published.VIZWIZ, "VizWiz", 2),
    ("val_v1.0_withQT.json", published.DOCVQA, "DocVQA", 1),
    ("infographicsVQA_val_v1.0_withQT.json", published.INFOGRAPHICVQA, "InfographicVQA", 1),
    ("test_human.json", published.CHARTQA, "ChartQA", 2),
    ("problems.json", published.SCIENCEQA, "ScienceQA", 3),
    ("dataset_v7w_telling.json", published.VISUAL7W, "Visual7W", 2),
    ("mine.json", published.GENERAL, "questions", 7),
]


@pytest.mark.parametrize(("name", "value", "form", "count"), FORMS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_form_is_found_by_its_fields(
    tmp_path: Path, name: str, value: Any, form: str, count: int, suffix: str
) -> None:
    path = write(tmp_path / (name + suffix), value)
    found = file_of(path).form()
    assert found.name == form
    assert set(found.metrics) <= set(METRICS)
    assert found.name in str(found)
    assert found.metrics[0] in str(found)
    questions = read(path)
    assert len(questions) == count
    assert len({one.id for one in questions}) == count
    assert all(one.text for one in questions)


@pytest.mark.parametrize(("name", "value", "form", "count"), [row for row in FORMS if isinstance(row[1], list)])
def test_lists_may_be_lines(tmp_path: Path, name: str, value: Any, form: str, count: int) -> None:
    path = tmp_path / name.replace(".json", ".jsonl")
    path.write_text("".join(json.dumps(one) + "\n" for one in value))
    assert file_of(path).form().name == form
    assert len(read(path)) == count


def test_vqav2s_answers_are_joined_by_the_questions_id(tmp_path: Path) -> None:
    questions = write(tmp_path / "questions.json", published.VQA_QUESTIONS)
    for suffix in ("", ".gz"):
        answers = write(tmp_path / f"annotations.json{suffix}", published.VQA_ANNOTATIONS)
        first, second, third = read(questions, annotations=Annotations(answers, tmp_path))
        assert first.image == "COCO_val2014_000000262148.jpg"
        assert first.truth == Truth(tuple(published.TEN))
        assert first.groups == {"question_type": ("where is",), "answer_type": ("other",)}
        assert second.id == "9001"
        assert second.truth.answers.count("two") == 4
        assert third.truth == Truth(("no",) * 10)


def test_ok_vqas_answers_are_the_stems_that_it_counts(tmp_path: Path) -> None:
    questions = write(
        tmp_path / "OpenEnded_mscoco_train2014_questions.json", {"questions": published.VQA_QUESTIONS["questions"]}
    )
    answers = Annotations(write(tmp_path / "annotations.json", published.OK_VQA_ANNOTATIONS), tmp_path)
    missing, found, last = file_of(questions, annotations=answers).read()
    assert isinstance(last, Rejected)
    assert missing == Rejected("entry 1", "no annotation in annotations.json")
    assert isinstance(found, VisualQuestion)
    assert found.image == "COCO_train2014_000000000009.jpg"  # the file's name says which part
    assert found.truth.answers == tuple(published.TEN)


def test_the_development_part_of_the_test_has_the_tests_images(tmp_path: Path) -> None:
    path = write(tmp_path / "q.json", {**published.VQA_QUESTIONS, "data_subtype": "test-dev2015"})
    assert read(path)[1].image == "COCO_test2015_000000000009.jpg"
    assert not read(path)[1].truth.is_known


def test_where_nothing_says_which_part_of_coco(tmp_path: Path) -> None:
    path = write(tmp_path / "q.json", {"questions": published.VQA_QUESTIONS["questions"]})
    assert all(isinstance(one, Rejected) and "data_subtype" in one.reason for one in file_of(path).read())


def test_a_okvqa_has_both_kinds_of_answers(tmp_path: Path) -> None:
    first, second = read(write(tmp_path / "a.json", published.A_OKVQA))
    assert first.image == "000000299207.jpg"
    assert first.truth.choices[first.truth.correct or 0] == "people"
    assert first.truth.answers.count("crowd") == 3
    assert first.explanation == "People stand by it."
    assert first.truth.counted
    assert not second.truth.counted


def test_gqa_counts_its_balanced_part(tmp_path: Path) -> None:
    first, second = read(write(tmp_path / "g.json", published.GQA))
    assert (first.id, first.image, first.truth) == ("201307251", "2354786.jpg", Truth(("yard",)))
    assert (first.groups["answer_type"], second.groups["answer_type"]) == (("open",), ("binary",))
    assert not second.truth.counted


def test_vizwiz_says_what_cannot_be_answered(tmp_path: Path) -> None:
    first, second = read(write(tmp_path / "v.json", published.VIZWIZ))
    assert (first.truth.answerable, second.truth.answerable) == (False, True)
    assert len(second.truth.answers) == 10
    assert first.id == "VizWiz_val_00000001.jpg"


def test_documents_charts_and_infographics(tmp_path: Path) -> None:
    [document] = read(write(tmp_path / "d.json", published.DOCVQA))
    assert (document.image, document.truth.answers) == ("pybv0228_81.png", ("0.28", ".28"))
    assert document.groups["question_type"] == ("figure/diagram", "form")
    [graphic] = read(write(tmp_path / "i.json", published.INFOGRAPHICVQA))
    assert (graphic.image, graphic.groups) == (
        "20471.jpeg", {"answer_type": ("image span",), "evidence": ("table/list",)},
    )  # fmt: skip
    for name, kind in (("test_human.json", "human"), ("test_augmented.json", "augmented")):
        chart, _ = read(write(tmp_path / name, published.CHARTQA))
        assert (chart.image, chart.truth.answers) == ("41699051005347.png", ("14",))
        assert chart.groups == {"question_type": (kind,)}


def test_scienceqas_splits_are_a_file_beside(tmp_path: Path) -> None:
    path = write(tmp_path / "problems.json", published.SCIENCEQA)
    assert [one.id for one in read(path, split="test")] == ["2", "3"]  # by the entries themselves
    write(tmp_path / "pid_splits.json", published.PID_SPLITS)
    assert [one.id for one in read(path, split="minitest")] == ["3"]
    with pytest.raises(UserError, match="no split 'dev'; it has train, val, test, minitest"):
        read(path, split="dev")
    first, second, third = read(path)
    assert first.image == "train/1/image.png"
    assert first.explanation == "Maps have four directions.\nWest Virginia is farthest north."
    assert first.groups["grade"] == ("1-6",)
    assert second.groups["grade"] == ("7-12",)
    assert second.image is None
    assert second.context == "Read this."
    assert [one.groups["context"] for one in (first, second, third)] == [("image",), ("text",), ("none",)]
    assert second.truth == Truth(("c",), ("a", "b", "c"), 2)


def test_visual7ws_right_choice_is_known(tmp_path: Path) -> None:
    first, _ = read(write(tmp_path / "v7w.json", published.VISUAL7W))
    assert first.truth == Truth(("A clock.",), ("A clock.", "A cat.", "A tree.", "A bus."), 0)


def test_the_general_form_takes_texts_numbers_lists_and_choices(tmp_path: Path) -> None:
    truths = [one.truth for one in read(write(tmp_path / "mine.json", published.GENERAL))]
    assert truths[:4] == [Truth(("a harbour",)), Truth(("3",)), Truth(("2.5",)), Truth(("he", "the man", "he"))]
    assert truths[4:] == [Truth(("blue",), ("red", "blue"), 1)] * 3


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"answer": None}, "no answer"), ({"answer": ""}, "no answer"), ({"answer": [" "]}, "no answer"),
        ({"answer": True}, "answer is neither a text nor a number"),
        ({"answer": [{"x": 1}]}, "answer is neither a text nor a number"),
        ({"answer": "x", "choices": ["a", "b"]}, "answer is none of the choices"),
        ({"answer": 2, "choices": ["a", "b"]}, "answer 2 is none of 2 choices"),
        ({"answer": "C", "choices": ["a", "b"]}, "answer is none of the choices"),
        ({"answer": "a", "choices": "ab"}, "choices is no list"),
        ({"answer": "a", "choices": [None]}, "a choice is neither a text nor a number"),
        ({"answer": "a", "image": None}, "no image"), ({"answer": "a", "question": " "}, "no question"),
        ({"answer": "a", "question": 3}, "question is not text"),
        ({"answer": "a", "image": "../x.jpg"}, "image outside its folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_listed(tmp_path: Path, entry: dict[str, Any], reason: str) -> None:
    whole = {"image": "1.jpg", "question": "what", "answer": "this"}
    path = write(tmp_path / "mine.json", [whole, {**whole, **entry}, "text", whole])
    found = list(file_of(path).read())
    assert found[1:3] == [Rejected("entry 2", reason), Rejected("entry 3", "not an object")]
    assert isinstance(found[0], VisualQuestion)
    assert isinstance(found[3], VisualQuestion)


def test_bad_lines_are_listed_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{json.dumps(published.GENERAL[0])}\n{{broken\n")
    found = list(file_of(path).read())
    assert isinstance(found[1], Rejected)
    assert found[1].where == "line 2"


@pytest.mark.parametrize(("value", "what"), [([{"id": 1, "conversations": []}], "no questions"), ([], "no questions")])
def test_a_file_of_something_else(tmp_path: Path, value: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        list(file_of(write(tmp_path / "x.json", value)).read())


def test_annotations_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no annotations"):
        Annotations(write(tmp_path / "a.json", {"annotations": [{"image_id": 1}]}), tmp_path)
    two = [published.VQA_ANNOTATIONS["annotations"][0]] * 2  # type: ignore[index]
    with pytest.raises(UserError, match="two annotations of question 9001"):
        Annotations(write(tmp_path / "b.json", {"annotations": two}), tmp_path)


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(stream, "PNG")
    return stream.getvalue()


def hub_rows() -> list[dict[str, Any]]:
    image = {"bytes": png("red"), "path": "x.png"}
    return [
        {
            "question_id": n,
            "image": image,
            "question": "what",
            "answers": answers,
            "image_id": "a",
            "image_classes": ["x"],
        }
        for n, answers in enumerate([published.TEN, published.TEN[::-1]])
    ]


def test_a_table_of_the_hub_has_its_images_inside(tmp_path: Path) -> None:
    for folder, names in (("one", ["a.parquet"]), ("two", ["a-0.parquet", "a-1.parquet"])):
        (tmp_path / folder).mkdir()
        for name in names:
            pq.write_table(pa.Table.from_pylist(hub_rows()), tmp_path / folder / name)
        path = tmp_path / folder if len(names) > 1 else tmp_path / folder / names[0]
        images = StoredImages(tmp_path / f"{folder}-images")
        file = QuestionFile(path, images)
        assert file.form().name == "TextVQA"
        found = [one for one in file.read() if isinstance(one, VisualQuestion)]
        assert len(found) == 2 * len(names)
        [stored] = {one.image for one in found}
        assert stored == hashlib.sha256(png("red")).hexdigest()[:32] + ".png"
        assert images.kept == 1
        assert open_image(images.folder / stored).getpixel((0, 0)) == (255, 0, 0)
        list(file.read())
        assert images.kept == 1


HUB = [
    ("VQAv2 or OK-VQA", {"question_type": "what", "multiple_choice_answer": "x", "image_id": 1, "answer_type": "other",
                         "answers": published.people(published.TEN), "question_id": 1}),
    ("VQAv2 or OK-VQA", {"question_id": "1", "answers": published.TEN, "question_type": "one", "answer_type": "other"}),
    ("A-OKVQA", {"question_id": "x", "choices": ["a", "b"], "correct_choice_idx": 0, "direct_answers": "['a', \"b's\"]",
                 "difficult_direct_answer": False, "rationales": ["because"]}),
    ("VizWiz", {"question_id": "VizWiz_val_1", "answers": published.TEN, "category": "other"}),
    ("DocVQA", {"questionId": "1", "question_types": ["form"], "docId": 1, "ucsf_document_id": "x", "answers": ["x"],
                "ucsf_document_page_no": "1", "data_split": "val"}),
    ("InfographicVQA", {"questionId": "1", "answers": ["x"], "answer_type": ["image span"], "image_url": "x",
                        "operation/reasoning": ["counting"], "ocr": "x", "data_split": "val"}),
    ("ChartQA", {"type": "human_test", "answer": "14"}),
    ("ChartQA", {"query": "what", "label": ["14"], "human_or_machine": 0}),
    ("ScienceQA", {"choices": ["a", "b"], "answer": 1, "hint": "", "task": "x", "grade": "grade2", "subject": "x",
                   "topic": "x", "category": "x", "skill": "x", "lecture": "", "solution": ""}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "fields"), HUB)
def test_the_hubs_names_of_fields(tmp_path: Path, form: str, fields: dict[str, Any]) -> None:
    row = {"image": {"bytes": png("blue"), "path": "x.png"}, "question": "what", **fields}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
    assert file_of(tmp_path / "t.parquet").form().name == form
    [found] = read(tmp_path / "t.parquet")
    assert found.image
    assert found.image.endswith(".png")
    assert found.truth.is_known
    if form == "A-OKVQA":
        assert found.truth.answers == ("a", "b's")
    if form == "ChartQA":
        assert found.groups == {"question_type": ("human",)}


def test_an_empty_image_is_listed(tmp_path: Path) -> None:
    rows = hub_rows()
    rows[1]["image"] = {"bytes": b"", "path": None}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert list(file_of(tmp_path / "t.parquet").read())[1] == Rejected("row 2", "image is empty")


def test_a_long_list_within_an_object_is_streamed(tmp_path: Path) -> None:
    """A list of over 16 MB, of which no entry is long: it is never one value."""
    one = {"image_id": 1, "question": "what " * 200, "question_id": 0}
    many = {**published.VQA_QUESTIONS, "questions": [{**one, "question_id": n} for n in range(17_000)]}
    path = write(tmp_path / "val2014.json", many)
    assert path.stat().st_size > 16 << 20
    assert sum(isinstance(found, VisualQuestion) for found in file_of(path).read()) == 17_000
