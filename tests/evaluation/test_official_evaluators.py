"""Every metric equals the benchmark's own evaluator on thousands of made-up answers, odd ones among them.

The evaluators are others' programs and not here. `LAVIC_OFFICIAL_EVALUATORS` names a folder that holds them:

- vqav2/PythonEvaluationTools/vqaEvaluation/vqaEval.py   GT-Vision-Lab/VQA (VQAv2, OK-VQA)
- mmf/m4c_evaluators.py                                  facebookresearch/mmf, mmf/utils/ (TextVQA)
- vizwiz/vqaEval.py                                      VizWiz's API.zip, with its classes' dictionaries as arguments
- infographicvqa/infographicsvqa_eval.py                 the Robust Reading Competition's script
- pix2struct/metrics.py                                  google-research/pix2struct (ChartQA)
- aokvqa/eval_predictions.py                             allenai/aokvqa, evaluation/
- scienceqa/run_gpt3.py                                  lupantech/ScienceQA, models/
- squad/evaluate_v1_1.py                                 SQuAD's evaluate-v1.1.py
- gqa/eval.py                                            GQA's eval.py
"""

import contextlib
import importlib.util
import io
import json
import os
import random
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavic.evaluation import contractions
from lavic.evaluation.anls import anls
from lavic.evaluation.exact_match import exact_match, normalised, token_f1
from lavic.evaluation.multiple_choice import LETTERS, chosen
from lavic.evaluation.relaxed_accuracy import relaxed_accuracy
from lavic.evaluation.unanswerable import average_precision, f1_share, says_unanswerable
from lavic.evaluation.vqa_accuracy import direct_answer_accuracy, textvqa_accuracy, vizwiz_accuracy, vqa_accuracy
from tests.evaluation.made_up_answers import Case, cases

FOLDER = Path(os.environ.get("LAVIC_OFFICIAL_EVALUATORS", "/nonexistent"))
COUNT = 3000

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="LAVIC_OFFICIAL_EVALUATORS names no folder of evaluators")


def evaluator(name: str, *stubs: str) -> types.ModuleType:
    """An evaluator's file as a module; `stubs` are imports that what is compared does not need."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    program = re.sub(r"(?m)^(\s*)print (\S.*)$", r"\1print(\2)", path.read_text(encoding="utf-8"))  # Python 2's
    module = types.ModuleType(path.stem)
    with stubbed(stubs):
        exec(compile(program, str(path), "exec"), module.__dict__)
    return module


@contextlib.contextmanager
def stubbed(names: tuple[str, ...]) -> Iterator[None]:
    absent = [name for name in names if importlib.util.find_spec(name.partition(".")[0]) is None]
    for name in absent:
        stub: Any = types.ModuleType(name)
        stub.__getattr__ = lambda attribute: None
        stub.__all__ = []
        sys.modules[name] = stub
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def differences(ours: list[float], theirs: list[float], asked: list[Any]) -> list[Any]:
    return [(a, b, case) for a, b, case in zip(ours, theirs, asked, strict=True) if abs(a - b) > 1e-9]


def test_vqa_accuracy_is_vqav2s_and_ok_vqas() -> None:
    module = evaluator("vqav2/PythonEvaluationTools/vqaEvaluation/vqaEval.py")
    made_up = cases(COUNT, 10)

    class Answers:
        def __init__(self, qa: dict[int, Any]) -> None:
            self.qa = qa

        def getQuesIds(self) -> list[int]:  # noqa: N802 (the evaluator's own)
            return list(self.qa)

    types_of = {"question_type": "what", "answer_type": "other"}
    truths = {
        n: {"answers": [{"answer": a, "answer_id": i} for i, a in enumerate(case.references)], **types_of}
        for n, case in enumerate(made_up)
    }
    said = {n: {"answer": case.prediction} for n, case in enumerate(made_up)}
    official = module.VQAEval(Answers(truths), Answers(said), n=9)
    with contextlib.redirect_stdout(io.StringIO()):
        official.evaluate()
    ours = [vqa_accuracy(case.prediction, case.references) for case in made_up]
    assert not differences([100 * score for score in ours], list(official.evalQA.values()), made_up)
    assert 0.2 < np.mean(ours) < 0.8
    assert abs(100 * np.mean(ours) - official.accuracy["overall"]) < 1e-6


def test_the_tables_of_contractions_are_theirs() -> None:
    """But for rows that change nothing, and those with capitals, which no text in lower case has."""
    vqav2 = evaluator("vqav2/PythonEvaluationTools/vqaEvaluation/vqaEval.py")
    theirs = vqav2.VQAEval(types.SimpleNamespace(getQuesIds=list), None).contractions
    assert {k: v for k, v in theirs.items() if k != v and k.islower()} == contractions.VQA
    theirs = vizwiz_official([], []).contractions
    assert {k: v for k, v in theirs.items() if k != v and k.islower()} == contractions.VIZWIZ


def test_textvqa_accuracy_is_textvqas() -> None:
    official = evaluator("mmf/m4c_evaluators.py").TextVQAAccuracyEvaluator()
    made_up = cases(COUNT, 10)
    theirs = [official.eval_pred_list([{"pred_answer": c.prediction, "gt_answers": c.references}]) for c in made_up]
    assert not differences([textvqa_accuracy(c.prediction, c.references) for c in made_up], theirs, made_up)


def vizwiz_official(made_up: list[Case], answerable: list[int]) -> Any:
    module = evaluator("vizwiz/vqaEval.py", "sklearn", "sklearn.metrics")
    truths = {
        n: {"answers": [{"answer": a} for a in case.references], "answerable": answerable[n]}
        for n, case in enumerate(made_up)
    }
    return module.VQAEval(truths, {n: {"answer": case.prediction} for n, case in enumerate(made_up)}, n=9)


def test_vizwiz_accuracy_is_vizwizs() -> None:
    made_up = cases(COUNT, 10)
    official = vizwiz_official(made_up, [1] * COUNT)
    with contextlib.redirect_stdout(io.StringIO()):
        official.evaluate()
    ours = [100 * vizwiz_accuracy(case.prediction, case.references) for case in made_up]
    assert not differences(ours, list(official.evalQA.values()), made_up)


def test_unanswerable_is_vizwizs() -> None:
    pytest.importorskip("sklearn")
    rng = random.Random(3)
    for size in (1, 2, 7, 400):
        said = ("unanswerable", "Unanswerable.", "the unanswerable", "no", "")
        made_up = [Case(("x",), rng.choice(said)) for _ in range(size)]
        answerable = [rng.randint(0, 1) for _ in range(size - 1)] + [0]
        official = vizwiz_official(made_up, answerable)
        official.evaluate_unanswerability()
        says = [says_unanswerable(case.prediction) for case in made_up]
        shares = np.array([f1_share(s, not a) for s, a in zip(says, answerable, strict=True)]).sum(axis=0)
        precision = average_precision(np.array(says, dtype=np.float64), 1.0 - np.array(answerable))
        assert abs(100 * shares[0] / shares[1] - official.unanswerability["f1_score"]) < 1e-6
        assert abs(100 * precision - official.unanswerability["average_precision"]) < 1e-6


def test_anls_is_the_reading_competitions(tmp_path: Path) -> None:
    module = evaluator("infographicvqa/infographicsvqa_eval.py")
    for references in (1, 3):
        made_up = cases(COUNT, references)
        asked = [
            {"questionId": n, "question": "", "image_local_name": "", "answers": case.references}
            for n, case in enumerate(made_up)
        ]
        said = [{"questionId": n, "answer": case.prediction} for n, case in enumerate(made_up)]
        (tmp_path / "truth.json").write_text(json.dumps({"data": asked}))
        (tmp_path / "said.json").write_text(json.dumps(said))
        parameters = types.SimpleNamespace(answer_types=False, anls_threshold=0.5)
        found = module.evaluate_method(tmp_path / "truth.json", tmp_path / "said.json", parameters)["per_sample_result"]
        ours = [anls(case.prediction, case.references) for case in made_up]
        assert not differences(ours, [one["score"] for one in found.values()], made_up)
        assert any(0.5 <= score < 1 for score in ours)


def test_relaxed_accuracy_is_pix2structs() -> None:
    stubs = ("pycocoevalcap", "pycocoevalcap.tokenizer", "pycocoevalcap.cider", "editdistance")
    modules = ("pycocoevalcap.tokenizer.ptbtokenizer", "pycocoevalcap.cider.cider")
    official = evaluator("pix2struct/metrics.py", *stubs, *modules)
    rng = random.Random(5)
    made_up = cases(COUNT, 1)
    for _ in range(COUNT):
        value = rng.choice((0, 1, 20, 0.5, -7.25, 1e6, 45))
        near = value * rng.choice((1, 1.05, 0.95, 1.0501, 0.9499, 1.2, -1))
        made_up.append(Case((f"{value}{rng.choice(('', '%'))}",), f"{near}{rng.choice(('', '%', ' %', '$'))}"))
    theirs = [float(official.relaxed_correctness(case.references[0], case.prediction)) for case in made_up]
    assert not differences([relaxed_accuracy(case.prediction, case.references) for case in made_up], theirs, made_up)


def test_direct_answers_and_choices_are_a_okvqas() -> None:
    official = evaluator("aokvqa/eval_predictions.py", "load_aokvqa")
    rng = random.Random(6)
    for case in cases(COUNT, 10):
        choices = list(dict.fromkeys([*case.references, "x", "y"]))[:4]
        asked = {
            "choices": choices,
            "correct_choice_idx": (right := rng.randrange(len(choices))),
            "direct_answers": list(case.references),
            "difficult_direct_answer": False,
        }
        theirs = official.eval_aokvqa({"q": asked}, {"q": case.prediction})
        assert abs(100 * direct_answer_accuracy(case.prediction, case.references) - theirs) < 1e-9, case
        pick = rng.choice(choices)  # it takes nothing else
        theirs = official.eval_aokvqa({"q": asked}, {"q": pick}, multiple_choice=True)
        assert 100.0 * (chosen(pick, choices, "text") == right) == theirs, (choices, pick)


def test_letters_are_scienceqas_wherever_it_does_not_draw_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    official = evaluator("scienceqa/run_gpt3.py", "openai", "tqdm", "models", "models.base_prompt")
    monkeypatch.setattr(official.random, "choice", lambda options: -1)
    names = ("engine", "temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty")
    arguments = types.SimpleNamespace(**dict.fromkeys(names))
    compared = 0
    for case in [*cases(COUNT, 3), *cases(COUNT, 5, seed=8)]:
        reply = {"choices": [{"text": case.prediction}]}
        official.openai.Completion = types.SimpleNamespace(create=lambda reply=reply, **_: reply)
        letter, _ = official.get_gpt3_result("", arguments)
        theirs = official.get_pred_idx(letter, case.references, list(LETTERS[:5]))
        if theirs >= 0:
            assert chosen(case.prediction, case.references, "letter") == theirs, case
            compared += 1
    assert compared > 50


def test_squad_differs_in_what_is_stated_alone() -> None:
    """Where nothing is left of a text, the official program calls silence right and F1 zero; both are stated."""
    official = evaluator("squad/evaluate_v1_1.py")
    compared = 0
    for case in cases(COUNT, 1):
        said, right = case.prediction, case.references[0]
        if normalised(said) and normalised(right):
            assert exact_match(said, right) == official.exact_match_score(said, right), case
            assert abs(token_f1(said, right) - official.f1_score(said, right)) < 1e-9, case
            compared += 1
    assert compared > 2000


def test_gqa_accuracy_is_gqas(tmp_path: Path) -> None:
    from lavic.catalogue.questions.question import Truth
    from lavic.evaluation.answer_metrics import METRICS, columns

    program = FOLDER / "gqa" / "eval.py"
    if not program.is_file():
        pytest.skip(f"{program} is absent")
    made_up, rng = cases(2000, 1), random.Random(8)
    kinds = [rng.choice(("query", "verify", "choose", "logical", "compare")) for _ in made_up]
    counted = [rng.random() < 0.7 for _ in made_up]
    asked = {
        str(n): {
            "question": "What is it?", "answer": case.references[0], "isBalanced": counted[n], "semantic": [],
            "types": {"structural": kinds[n], "semantic": "obj", "detailed": "x"}, "groups": {"global": "x"},
        }
        for n, case in enumerate(made_up)
    }  # fmt: skip
    (tmp_path / "val_all_questions.json").write_text(json.dumps(asked))
    said = [{"questionId": str(n), "prediction": case.prediction} for n, case in enumerate(made_up)]
    (tmp_path / "val_predictions.json").write_text(json.dumps(said))
    stub = tmp_path / "tqdm.py"
    stub.write_text("def tqdm(items, **_):\n    return items\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(program), "--tier", "val"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    theirs = dict(re.findall(r"(?m)^(\w+): ([\d.]+)%", done.stdout))
    truths = [Truth(case.references, counted=is_counted) for case, is_counted in zip(made_up, counted, strict=True)]
    above, below = columns(METRICS["gqa_accuracy"], [case.prediction for case in made_up], truths)
    is_open = np.array([kind == "query" for kind in kinds])
    for name, rows in (("Accuracy", is_open | True), ("Open", is_open), ("Binary", ~is_open)):
        assert f"{100 * above[rows].sum() / below[rows].sum():.2f}" == theirs[name]
