"""Every published form of a question, found by its fields: what each field means, and the numbers it is counted by.

A form's fields are those of the benchmark's own files and of the tables on the hub, where these differ in a name.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lavic.catalogue.questions.cells import Fields, Unfit, answers_of, groups_of, id_of, optional_text, text_of
from lavic.catalogue.questions.choices import choices_of, chosen_truth, numbered_truth
from lavic.catalogue.questions.question import Truth, VisualQuestion


@dataclass(frozen=True, slots=True)
class Given:
    """An entry of a file.

    Attributes:
        fields: what it holds; of VQAv2 and OK-VQA with its annotation's.
        key: of an object's member.
        number: its place in the file, from 1.
        file: the file's name.
        subset: which part of COCO the images are of, such as `val2014`; empty where neither file nor name says so.
    """

    fields: Fields
    key: str | None = None
    number: int = 1
    file: str = ""
    subset: str = ""


@dataclass(frozen=True)
class Form:
    """How a benchmark publishes its questions.

    Attributes:
        name: the benchmark.
        metrics: what its papers print, the first in front; names of `answer_metrics.METRICS`.
        is_of: whether an entry has this form.
        parse: an entry's questions; raises Unfit.
    """

    name: str
    metrics: tuple[str, ...]
    is_of: Callable[[Fields], bool]
    parse: Callable[[Given], Sequence[VisualQuestion]]

    def __str__(self) -> str:
        return f"the form of {self.name}, counted by {', '.join(self.metrics)}"


def _has(*names: str) -> Callable[[Fields], bool]:
    return lambda fields: all(name in fields for name in names)


def _image(fields: Fields, otherwise: str | None = None) -> str:
    """The image's name in its field, or what its number makes of it."""
    written = fields.get("image")
    if isinstance(written, str) and written.strip():
        return written
    if otherwise is None:
        raise Unfit("no image")
    return otherwise


def _coco_number(fields: Fields) -> int:
    number = fields.get("image_id")
    if isinstance(number, str) and number.isdecimal():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise Unfit("no image_id")
    return number


def _vqa(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    named = isinstance(fields.get("image"), str)
    if not named and not given.subset:
        raise Unfit("neither data_subtype nor the file's name says whether its images are of train2014 or val2014")
    name = _image(fields, None if named else f"COCO_{given.subset}_{_coco_number(fields):012}.jpg")
    groups = groups_of(question_type=fields.get("question_type"), answer_type=fields.get("answer_type"))
    truth = Truth(answers_of(fields.get("answers")))
    return [VisualQuestion(_id(given, "question_id"), name, text_of(fields, "question"), truth, groups=groups)]


def _a_okvqa(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    direct = fields.get("direct_answers")
    if isinstance(direct, str):  # the hub's table writes the list as Python does
        direct = [said or also for said, also in re.findall(r"'([^']*)'|\"([^\"]*)\"", direct)]
    truth = numbered_truth(choices_of(fields), fields.get("correct_choice_idx"))
    truth = replace(truth, answers=answers_of(direct), counted=not fields.get("difficult_direct_answer"))
    image = _image(fields, None if isinstance(fields.get("image"), str) else f"{_coco_number(fields):012}.jpg")
    rationales = answers_of(fields.get("rationales"))
    question = VisualQuestion(_id(given, "question_id"), image, text_of(fields, "question"), truth)
    return [replace(question, explanation=rationales[0] if rationales else "")]


def _textvqa(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    image = _image(fields, None if isinstance(fields.get("image"), str) else f"{text_of(fields, 'image_id')}.jpg")
    truth = Truth(answers_of(fields.get("answers")))
    return [VisualQuestion(_id(given, "question_id"), image, text_of(fields, "question"), truth)]


def _gqa(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    image = _image(fields, None if isinstance(fields.get("image"), str) else f"{text_of(fields, 'imageId')}.jpg")
    kinds = types if isinstance(types := fields.get("types"), dict) else {}
    structural = kinds.get("structural")
    groups = groups_of(
        answer_type=structural and ("open" if structural == "query" else "binary"),
        structural_type=structural,
        semantic_type=kinds.get("semantic"),
    )
    truth = Truth(answers_of(fields.get("answer")), counted=fields.get("isBalanced") is not False)
    return [VisualQuestion(_id(given, "id"), image, text_of(fields, "question"), truth, groups=groups)]


def _vizwiz(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    kind = fields.get("answer_type", fields.get("category"))
    answerable = fields.get("answerable")
    if answerable is None and kind:
        answerable = kind != "unanswerable"
    truth = Truth(answers_of(fields.get("answers")), answerable=None if answerable is None else bool(answerable))
    question = text_of(fields, "question")
    return [
        VisualQuestion(
            _id(given, "question_id", "image"), _image(fields), question, truth, groups=groups_of(answer_type=kind)
        )
    ]


def _docvqa(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    groups = groups_of(question_type=fields.get("question_types"))
    truth = Truth(answers_of(fields.get("answers")))
    image = _image(fields)
    name = image.removeprefix("documents/")  # where the archive with the images has them
    return [VisualQuestion(_id(given, "questionId"), name, text_of(fields, "question"), truth, groups=groups)]


def _infographicvqa(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    named = isinstance(fields.get("image"), str)
    image = _image(fields, None if named else text_of(fields, "image_local_name"))
    groups = groups_of(
        answer_type=fields.get("answer_type"),
        evidence=fields.get("evidence"),
        reasoning=fields.get("operation/reasoning"),
    )
    truth = Truth(answers_of(fields.get("answers")))
    return [VisualQuestion(_id(given, "questionId"), image, text_of(fields, "question"), truth, groups=groups)]


def _chartqa(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    image = _image(fields, None if isinstance(fields.get("image"), str) else text_of(fields, "imgname"))
    written = fields.get("type", fields.get("human_or_machine", given.file))
    by_people = "human" in written if isinstance(written, str) else written == 0  # the hub's table: 0 is human
    is_said = isinstance(written, int) or "human" in str(written) or "augmented" in str(written)
    groups = groups_of(question_type=("human" if by_people else "augmented") if is_said else None)
    truth = Truth(answers_of(fields.get("label", fields.get("answer"))))
    return [VisualQuestion(_id(given, "id"), image, text_of(fields, "query", "question"), truth, groups=groups)]


def _scienceqa(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    truth = numbered_truth(choices_of(fields), fields.get("answer"))
    id = _id(given, "id")
    image = fields.get("image")
    if image and not isinstance(image, str):
        raise Unfit("image is not a name")
    if image and given.key is not None:  # the archive's folders: test/11/image.png
        image = f"{text_of(fields, 'split')}/{given.key}/{image}"
    context = optional_text(fields, "hint")
    grade = re.sub(r"\D", "", str(fields.get("grade", "")))
    groups = groups_of(
        subject=fields.get("subject"),
        context=[name for name, has in (("text", context), ("image", image)) if has] or ["none"],
        grade=grade and ("1-6" if int(grade) <= 6 else "7-12"),
        topic=fields.get("topic"),
    )
    explanation = optional_text(fields, "lecture", "solution")
    return [VisualQuestion(id, image or None, text_of(fields, "question"), truth, context, explanation, groups)]


def _visual7w(given: Given) -> list[VisualQuestion]:
    """An image's questions: of each the right choice first, then the wrong ones; they are shown in another order."""
    fields = given.fields
    image = text_of(fields, "filename")
    asked = []
    for pair in fields["qa_pairs"]:
        right = text_of(pair, "answer")
        choices = choices_of({"choices": [right, *pair.get("multiple_choices", [])]})
        truth = Truth((right,), choices, 0)
        groups = groups_of(question_type=pair.get("type"))
        asked.append(
            VisualQuestion(
                id_of(pair, None, given.number, "qa_id"), image, text_of(pair, "question"), truth, groups=groups
            )
        )
    return asked


def _general(given: Given) -> list[VisualQuestion]:
    fields = given.fields
    written = fields.get("answer", fields.get("answers"))
    if written is None or written == "" or written == []:
        raise Unfit("no answer")
    truth = chosen_truth(choices_of(fields), written) if fields.get("choices") else Truth(answers_of(written))
    if any(not answer.strip() for answer in truth.answers):
        raise Unfit("no answer")
    groups = groups_of(question_type=fields.get("question_type"), answer_type=fields.get("answer_type"))
    context = optional_text(fields, "hint", "context")
    explanation = optional_text(fields, "explanation", "rationale")
    name = _image(fields)
    return [
        VisualQuestion(
            _id(given, "question_id", "id"), name, text_of(fields, "question"), truth, context, explanation, groups
        )
    ]


def _id(given: Given, *names: str) -> str:
    return id_of(given.fields, given.key, given.number, *names)


def _is_vizwiz(fields: Fields) -> bool:
    return _has("answerable", "image", "question")(fields) or _has("category", "answers", "question_id")(fields)


def _is_chartqa(fields: Fields) -> bool:
    is_published = "query" in fields and ("label" in fields or "imgname" in fields)
    return is_published or fields.get("type") in ("human_test", "augmented_test")


def _is_infographic(fields: Fields) -> bool:
    return "questionId" in fields and ("image_local_name" in fields or "operation/reasoning" in fields)


CHOICE = ("multiple_choice",)
FORMS = (
    Form("A-OKVQA", (*CHOICE, "direct_answer_accuracy"), _has("choices", "direct_answers"), _a_okvqa),
    Form("A-OKVQA", (*CHOICE, "direct_answer_accuracy"), _has("choices", "difficult_direct_answer"), _a_okvqa),
    Form("ScienceQA", CHOICE, _has("choices", "answer", "hint", "lecture"), _scienceqa),
    Form("Visual7W", CHOICE, _has("filename", "qa_pairs"), _visual7w),
    Form("GQA", ("gqa_accuracy",), _has("imageId", "question"), _gqa),
    Form("InfographicVQA", ("anls",), _is_infographic, _infographicvqa),
    Form("DocVQA", ("anls",), _has("questionId", "question"), _docvqa),
    Form("TextVQA", ("textvqa_accuracy",), _has("image_id", "question", "image_classes"), _textvqa),
    Form("ChartQA", ("relaxed_accuracy",), _is_chartqa, _chartqa),
    Form("VizWiz", ("vizwiz_accuracy", "unanswerable_f1"), _is_vizwiz, _vizwiz),
    Form("VQAv2 or OK-VQA", ("vqa_accuracy",), _has("question_id", "image_id", "question"), _vqa),
    Form("VQAv2 or OK-VQA", ("vqa_accuracy",), _has("question_id", "question_type", "answers"), _vqa),
    Form("choices", CHOICE, _has("question", "choices"), _general),
    Form("questions", ("exact_match",), _has("question"), _general),
)


def form_of(fields: Fields) -> Form | None:
    """The form of an entry; None where it is no question that is known."""
    return next((form for form in FORMS if form.is_of(fields)), None)
