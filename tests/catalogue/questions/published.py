"""A few questions in each published form, with made-up contents: what a benchmark's own file looks like."""

from typing import Any

TEN = ["net", "net", "net", "netting", "net", "net", "mesh", "net", "net", "net"]


def people(answers: list[str]) -> list[dict[str, Any]]:
    return [{"answer_id": n, "answer": a, "answer_confidence": "yes"} for n, a in enumerate(answers, 1)]


VQA_QUESTIONS = {
    "info": {"description": "made up", "version": "2.0", "year": 2017},
    "task_type": "Open-Ended",
    "data_type": "mscoco",
    "license": {"url": "x", "name": "x"},
    "data_subtype": "val2014",
    "questions": [
        {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000},
        {"image_id": 9, "question": "How many?", "question_id": 9001},
        {"image_id": 5, "question": "Is it red?", "question_id": 5002},
    ],
}
VQA_ANNOTATIONS = {
    "info": {"description": "made up"},
    "annotations": [
        {
            "question_type": "how many", "multiple_choice_answer": "2", "answers": people(["2"] * 6 + ["two"] * 4),
            "image_id": 9, "answer_type": "number", "question_id": 9001,
        },
        {
            "question_type": "where is", "multiple_choice_answer": "net", "answers": people(TEN), "image_id": 262148,
            "answer_type": "other", "question_id": 262148000,
        },
        {
            "question_type": "is it", "multiple_choice_answer": "no", "answers": people(["no"] * 10), "image_id": 5,
            "answer_type": "yes/no", "question_id": 5002,
        },
    ],
    "data_subtype": "val2014",
}  # fmt: skip
OK_VQA_ANNOTATIONS = {
    "annotations": [
        {
            "image_id": 9, "answer_type": "other", "question_type": "four", "question_id": 9001, "confidence": 3,
            "answers": [{**one, "raw_answer": one["answer"] + "s"} for one in people(TEN)],
        }
    ]
}  # fmt: skip
A_OKVQA = [
    {
        "split": "val", "image_id": 299207, "question_id": "22MexNkBPpdZGX6sxbxVBH", "question": "What is by the bus?",
        "choices": ["skateboard", "people", "fire", "horse"], "correct_choice_idx": 1,
        "direct_answers": ["people"] * 7 + ["crowd"] * 3, "difficult_direct_answer": False,
        "rationales": ["People stand by it.", "A crowd waits.", "They wait."],
    },
    {
        "split": "val", "image_id": 7, "question_id": "b", "question": "How old?", "choices": ["1", "2", "3", "4"],
        "correct_choice_idx": 3, "direct_answers": ["4"] * 10, "difficult_direct_answer": True, "rationales": [],
    },
]  # fmt: skip
TEXTVQA = {
    "dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1",
    "data": [
        {
            "question": "what brand is it?", "image_id": "003a8ae2ef43b901", "image_classes": ["Camera"],
            "flickr_original_url": "x", "image_width": 1024, "image_height": 664, "answers": ["dakota"] * 10,
            "question_tokens": ["what"], "question_id": 34602, "set_name": "val",
        }
    ],
}  # fmt: skip
GQA = {
    "201307251": {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "place (0)"}], "entailed": [],
        "equivalent": ["201307251"], "question": "Which place is it?", "imageId": "2354786", "isBalanced": True,
        "groups": {"global": "place", "local": "x"}, "answer": "yard", "semanticStr": "x", "annotations": {},
        "types": {"detailed": "place", "semantic": "global", "structural": "query"}, "fullAnswer": "It is a yard.",
    },
    "201640614": {
        "semantic": [], "entailed": [], "equivalent": [], "question": "Is it red?", "imageId": "1", "isBalanced": False,
        "groups": {"global": None, "local": "x"}, "answer": "no", "semanticStr": "x", "annotations": {},
        "types": {"detailed": "x", "semantic": "attr", "structural": "verify"}, "fullAnswer": "No.",
    },
}  # fmt: skip
VIZWIZ = [
    {
        "answerable": 0, "image": "VizWiz_val_00000001.jpg", "question": "What is this?", "answer_type": "unanswerable",
        "answers": [{"answer_confidence": "yes", "answer": "unanswerable"}] * 10,
    },
    {
        "answerable": 1, "image": "VizWiz_val_00000002.jpg", "question": "What colour?", "answer_type": "other",
        "answers": [{"answer_confidence": "maybe", "answer": a} for a in ["red"] * 8 + ["pink", "unsuitable"]],
    },
]  # fmt: skip
DOCVQA = {
    "dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "val",
    "data": [
        {
            "questionId": 49153, "question": "What is the value?", "question_types": ["figure/diagram", "form"],
            "image": "documents/pybv0228_81.png", "docId": 14465, "ucsf_document_id": "pybv0228",
            "ucsf_document_page_no": "81", "answers": ["0.28", ".28"], "data_split": "val",
        }
    ],
}  # fmt: skip
INFOGRAPHICVQA = {
    "dataset_name": "infographicVQA", "dataset_version": "VQAv1.0", "dataset_split": "val",
    "data": [
        {
            "questionId": 98313, "question": "Which network?", "image_local_name": "20471.jpeg", "image_url": "x",
            "ocr_output_file": "20471.json", "answers": ["pinterest"], "data_split": "val",
            "answer_type": ["image span"], "evidence": ["table/list"], "operation/reasoning": [],
        }
    ],
}  # fmt: skip
CHARTQA = [
    {"imgname": "41699051005347.png", "query": "How many items?", "label": "14"},
    {"imgname": "two_col_1.png", "query": "Which is greater?", "label": "Inspired"},
]
SCIENCEQA = {
    "1": {
        "question": "Which is farthest north?", "choices": ["West Virginia", "Louisiana"], "answer": 0, "hint": "",
        "image": "image.png", "task": "closed choice", "grade": "grade2", "subject": "social science",
        "topic": "geography", "category": "Geography", "skill": "Read a map", "lecture": "Maps have four directions.",
        "solution": "West Virginia is farthest north.", "split": "train",
    },
    "2": {
        "question": "Which holds?", "choices": ["a", "b", "c"], "answer": 2, "hint": "Read this.", "image": None,
        "task": "closed choice", "grade": "grade8", "subject": "natural science", "topic": "biology", "category": "x",
        "skill": "x", "lecture": "", "solution": "c holds.", "split": "test",
    },
    "3": {
        "question": "Which one?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": None, "task": "x",
        "grade": "grade7", "subject": "language science", "topic": "verbs", "category": "x", "skill": "x",
        "lecture": "", "solution": "", "split": "test",
    },
}  # fmt: skip
PID_SPLITS = {"train": ["1"], "val": [], "test": ["2", "3"], "minitest": ["3"]}
VISUAL7W = {
    "dataset": "visual7w-telling",
    "images": [
        {
            "filename": "v7w_2358125.jpg", "image_id": 2358125, "split": "train",
            "qa_pairs": [
                {
                    "qa_id": 434254, "image_id": 2358125, "type": "what", "question": "What is it?",
                    "answer": "A clock.",
                    "multiple_choices": ["A cat.", "A tree.", "A bus."],
                },
                {
                    "qa_id": 434255, "image_id": 2358125, "type": "when", "question": "When?", "answer": "At noon.",
                    "multiple_choices": ["At night.", "In spring.", "At dawn."],
                },
            ],
        }
    ],
}  # fmt: skip
GENERAL = [
    {"image": "1.jpg", "question": "what is it", "answer": "a harbour", "need_external_knowledge": False},
    {"image": "1.jpg", "question": "how many", "answer": 3},
    {"image": "2.jpg", "question": "how much", "answer": 2.5},
    {"image": "2.jpg", "question": "who", "answer": ["he", "the man", "he"]},
    {"image": "2.jpg", "question": "which", "answer": "B", "choices": ["red", "blue"]},
    {"image": "2.jpg", "question": "which", "answer": 1, "choices": ["red", "blue"]},
    {"image": "2.jpg", "question": "which", "answer": "blue", "choices": ["red", "blue"]},
]
