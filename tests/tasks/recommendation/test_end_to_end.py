"""`candidates: retrieved:K` in fit and test, and the end-to-end numbers against plain ones from the written answers."""

import json
import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lavic.catalogue.conversations import Conversation
from lavic.commands import embed
from lavic.commands import fit as cli
from lavic.errors import UserError
from lavic.evaluation.tested_rows import read_tested_rows
from lavic.model.processor import load_processor
from lavic.model.scoring import PromptState
from lavic.tasks.recommendation.candidates import Retrieved, parse_retrieved
from lavic.tasks.recommendation.end_to_end import end_to_end
from tests.stage2_files import Stage2Files, write_stage2_files

LONG = "B-A-SHOPS-OWN-STOCK-KEEPING-UNIT-"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Stage2Files:
    """Conversations that name items by number; the last of each split matches nothing, the first has no truth."""
    files = write_stage2_files(tmp_path_factory.mktemp("shop") / "files", tiny)
    rng, ids = random.Random(0), list(json.loads((files.folder / "items.json").read_text()))
    for path in files.folder.glob("*/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            wanted = rng.randrange(24)
            row["context"] = f"<submission>Have you number {wanted}?</submission>\n<comment>{rng.random()}</comment>\n"
            row["gt_items"] = [ids[wanted] if rng.random() < 0.6 else rng.choice(ids), rng.choice(ids)]
            del row["candidates_st"]
        rows[0]["gt_items"] = []
        rows[-1]["context"] = "<submission>🎂</submission>\n"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[3])
        embed.main(files.options())
    return files


def run(files: Stage2Files, command: str, output: Path, *options: str) -> Path:
    before = logging.getLogger().handlers[:]
    try:
        cli.main(
            [
                command, *files.options(), "--trainer.accelerator=cpu", f"--trainer.default_root_dir={output}",
                f"--logs_dir={output / 'logs'}", *options,
            ]
        )  # fmt: skip
    finally:
        logging.getLogger().handlers[:] = before
    return output


def plain_numbers(rows: list[dict[str, Any]], field: str, scores: str | None, k: int) -> dict[str, float]:
    """From rows as written: every number by its definition, one conversation after the other."""
    truths = found1 = found10 = found_k = hits1 = hits10 = 0
    reciprocal = 0.0
    for row in rows:
        right, candidates = set(row["gt_items"]), row[field]
        truths += len(right)
        found1 += len(right & set(candidates[:1]))
        found10 += len(right & set(candidates[:10]))
        found_k += len(right & set(candidates))
        order = candidates
        if scores:
            order = [item for _, item in sorted(zip(row[scores], candidates, strict=True), key=lambda p: -p[0])]
        rank = next((place for place, item in enumerate(order, 1) if item in right), None)
        hits1, hits10 = hits1 + (rank == 1), hits10 + bool(rank and rank <= 10)
        reciprocal += 1 / rank if rank else 0
    return {
        "recall@1": found1 / truths, "recall@10": found10 / truths, f"recall@{k}": found_k / truths,
        "hit_ratio@1": hits1 / len(rows), "hit_ratio@10": hits10 / len(rows), "mrr": reciprocal / len(rows),
    }  # fmt: skip


def test_end_to_end_numbers_equal_plain_ones(
    files: Stage2Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    output = run(files, "test", tmp_path / "out", "--data.init_args.candidates=retrieved:14:titles")
    field = "candidates_retrieved_14_titles"
    rows = [json.loads(line) for line in (output / f"test_results_{field}.jsonl").read_text().splitlines()]
    assert len(rows) == 10  # of 12; two match nothing, and are no prompts
    assert all(0 < len(row[field]) <= 14 for row in rows)
    judged = [row for row in rows if row["gt_items"]]
    given = [json.loads(line) for path in sorted(files.folder.glob("*/test.jsonl")) for line in path.open()]
    missed = [{**row, field: [], "scores": []} for row in given if "🎂" in row["context"]]
    report = json.loads((output / "end_to_end.json").read_text())["all"]
    assert (report["conversations"], report["nothing_matched"]) == (10, 2)
    short = field.removeprefix("candidates_")
    ways = {
        "scored": f"scores_{short}",
        "no_images": f"scores_no_images_{short}",
        "shuffled_images": f"scores_shuffled_images_{short}",
        "retrieval_order": None,
    }
    assert report["ways"].keys() == ways.keys()
    for way, scores in ways.items():
        plain = plain_numbers(judged + [{**row, scores or "": []} for row in missed], field, scores, 14)
        for name, interval in {**report["retrieval"], **report["ways"][way]}.items():
            assert interval["value"] == pytest.approx(plain[name]), (way, name)
            assert interval["low"] <= interval["value"] <= interval["high"]
        for metric in ("hit_ratio@1", "hit_ratio@10", "mrr"):  # what `compare` reads
            compared = [row.numerator for row in read_tested_rows(output, way, metric)]
            assert len(compared) == 10
            assert sum(compared) / 10 == pytest.approx(plain[metric]), (way, metric)
    skipped = (output / "skipped_samples.jsonl").read_text()
    assert skipped.count("nothing in the catalogue matches") == 2


def test_fit_takes_retrieved_candidates(files: Stage2Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    output = run(files, "fit", tmp_path / "out", "--data.init_args.candidates=retrieved:6", "--trainer.max_epochs=1")
    assert (output / "recommendation_lora_adapter_best" / "adapter_model.safetensors").is_file()


def test_candidates_for_no_conversation_at_all_are_a_mistake(
    files: Stage2Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "test.jsonl").write_text(json.dumps({"context": "🎂", "gt_items": ["B000000001"]}) + "\n")
    here = [f"--data.init_args.data_dir={tmp_path}", "--data.init_args.categories=[home]"]
    with pytest.raises(UserError, match="Nothing in the catalogue's titles matches any conversation of the test split"):
        run(files, "test", tmp_path / "out", *here, "--data.init_args.candidates=retrieved:5:titles")
    with pytest.raises(UserError, match="has a description to index"):
        run(files, "test", tmp_path / "out2", *here, "--data.init_args.candidates=retrieved:5:descriptions")


def conversation(context: str, candidates: list[str], truths: list[str]) -> Conversation:
    return Conversation("shop", 1, context, tuple(candidates), tuple(truths), {})


def test_a_thread_repeated_does_not_narrow_the_interval() -> None:
    """Rows of one thread are one observation: ten copies of each give the interval that one of each gives."""
    rng = random.Random(0)
    single = [conversation(f"<submission>wish {i}</submission>", ["a", "b"], [rng.choice("abc")]) for i in range(40)]
    scores = {"scored": [[rng.random(), rng.random()] for _ in single]}
    once = end_to_end(single, scores, 2, seed=1)
    copies = [replace(c, context=c.context + f"<comment>{i}</comment>") for c in single for i in range(10)]
    tenfold = end_to_end(copies, {"scored": [s for s in scores["scored"] for _ in range(10)]}, 2, seed=1)
    for name, interval in once["ways"]["scored"].items():
        assert tenfold["ways"]["scored"][name] == pytest.approx(interval)


def test_the_interval_is_the_bootstraps_over_threads() -> None:
    """Against resampling by hand: a plain loop over drawn threads, with another generator."""
    rng = random.Random(3)
    rows = [
        conversation(f"<submission>wish {i // 3}</submission>", ["a", "b"], [rng.choice("abcd")]) for i in range(90)
    ]
    interval = end_to_end(rows, {}, 2, seed=1)["ways"]["retrieval_order"]["hit_ratio@1"]
    threads = [[row.gt_items[0] == "a" for row in rows[i : i + 3]] for i in range(0, 90, 3)]
    draws = []
    for _ in range(4000):
        drawn = [hit for thread in rng.choices(threads, k=30) for hit in thread]
        draws.append(sum(drawn) / len(drawn))
    draws.sort()
    assert interval["low"] == pytest.approx(draws[100], abs=0.02)
    assert interval["high"] == pytest.approx(draws[3900], abs=0.02)


def test_what_is_asked_for_is_parsed() -> None:
    assert parse_retrieved("candidates_st") is None
    assert parse_retrieved("retrieved") is None
    assert parse_retrieved("retrieved:50") == Retrieved(50, "both")
    assert parse_retrieved("retrieved:5:titles") == Retrieved(5, "titles")
    for wrong in ("retrieved:", "retrieved:0", "retrieved:ten", "retrieved:-1", "retrieved:5:images", "retrieved:²"):
        with pytest.raises(UserError, match="give retrieved:K"):
            parse_retrieved(wrong)


def test_a_generated_id_is_never_cut_off_however_long(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen tokens were the limit, so that a shop's own long IDs could not be named."""
    files = write_stage2_files(tmp_path / "files", tiny)
    for path in [files.folder / "items.json", *files.folder.glob("*/*.jsonl")]:
        path.write_text(path.read_text().replace("B0000000", LONG))
    for image in (files.folder / "images").iterdir():
        image.rename(image.with_name(image.name.replace("B0000000", LONG)))
    tokenizer = load_processor(str(tiny)).tokenizer
    asked: list[int] = []

    def named(state: PromptState, max_new_tokens: int, eos_id: int, allowed: Any = None) -> list[list[int]]:
        """What a model that names an ID would say within the limit; here, each time the same."""
        if allowed is not None:
            return own_decode(state, max_new_tokens, eos_id, allowed)
        asked.append(max_new_tokens)
        return [said[: max_new_tokens - 1] for _ in state._mask]

    longest = f"{LONG}23"
    said = tokenizer(longest, add_special_tokens=False)["input_ids"]
    own_decode = PromptState.decode
    monkeypatch.setattr(PromptState, "decode", named)
    monkeypatch.chdir(Path(__file__).parents[3])
    embed.main(files.options())
    output = run(files, "test", tmp_path / "out")
    rows = [json.loads(line) for line in (output / "test_results_candidates_st.jsonl").read_text().splitlines()]
    assert {row["recommended_st"] for row in rows if longest in row["candidates_st"]} == {longest}
    assert set(asked) == {len(said) + 1}
    asked.clear()
    run(files, "test", tmp_path / "short", "--model.init_args.max_new_tokens=5")
    assert set(asked) == {5}
