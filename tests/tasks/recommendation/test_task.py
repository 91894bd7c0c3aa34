"""Stage 2 through its real commands on a tiny model: what is trained, kept, written, and never touched (fault 9)."""

import csv
import io
import json
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import LlavaNextForConditionalGeneration

from lavic.catalogue.items import read_items
from lavic.commands import embed, recommend
from lavic.commands import fit as cli
from lavic.demo.toy_llava import tiny_checkpoint
from lavic.errors import UserError
from lavic.model.processor import load_processor, placeholder_ids
from lavic.model.visual_tokens import fill_placeholders
from lavic.tasks.recommendation import batches
from lavic.tasks.recommendation.item_store import ItemStore, store_identity
from lavic.tasks.recommendation.prompt import Shown, encode_choice, recommendation_prompt
from tests.stage2_files import Stage2Files, write_stage2_files

BEST = "recommendation_lora_adapter_best"
ONE_STEP = ("--trainer.limit_train_batches=8", "--trainer.limit_val_batches=1")


@dataclass
class Stage2:
    """Runs the commands in this process, each with an output directory of its own."""

    files: Stage2Files
    folder: Path
    runs: int = 0

    def __call__(self, command: str, *options: str) -> Path:
        self.runs += 1
        output = self.folder / f"out_{self.runs}"
        before = logging.getLogger().handlers[:]
        try:
            cli.main(
                [
                    command, *self.files.options(), "--trainer.accelerator=cpu", "--model.init_args.lr=0.01",
                    f"--trainer.default_root_dir={output}", f"--logs_dir={self.folder / 'logs'}", *options,
                ]
            )  # fmt: skip
        finally:
            logging.getLogger().handlers[:] = before
        return output


@pytest.fixture(scope="module")
def stage2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage2]:
    folder = tmp_path_factory.mktemp("stage2")
    tiny_checkpoint(folder / "tiny")
    files = write_stage2_files(folder / "files", folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[3])
        embed.main(files.options())
        yield Stage2(files, folder)


@dataclass(frozen=True)
class Trained:
    """A finished fit, its test, and what the input files held before."""

    fitted: Path
    tested: Path
    before: dict[Path, bytes]


@pytest.fixture(scope="module")
def trained(stage2: Stage2) -> Trained:
    before = {path: path.read_bytes() for path in stage2.files.folder.rglob("*") if path.is_file()}
    fitted = stage2("fit", "--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=2")
    return Trained(fitted, stage2("test", f"--model.init_args.adapter={fitted / BEST}"), before)


def base(stage2: Stage2) -> Any:
    return LlavaNextForConditionalGeneration.from_pretrained(stage2.files.model).eval()


def test_fault_9_starts_from_the_adapter_directory_with_its_processor(stage2: Stage2, trained: Trained) -> None:
    for folder in (stage2.files.distilled, trained.fitted / BEST):
        assert placeholder_ids(load_processor(str(folder))) == placeholder_ids(load_processor(str(stage2.files.model)))


def test_fault_9_the_language_model_alone_is_trained(stage2: Stage2, trained: Trained) -> None:
    saved = load_file(trained.fitted / BEST / "adapter_model.safetensors")
    linears = {
        name
        for name, module in base(stage2).named_modules()
        if isinstance(module, nn.Linear) and name.startswith("model.language_model.")
    }
    adapted = {re.sub(r"^base_model\.model\.(.*)\.lora_[AB]\.weight$", r"\1", name) for name in saved}
    assert adapted == linears
    assert len(saved) == 2 * len(linears)
    checkpoint = torch.load(trained.fitted / "last.ckpt", weights_only=True)["state_dict"]
    assert len(checkpoint) == len(saved)
    assert all(".recommendation." in name and ".language_model." in name for name in checkpoint)


def test_every_weight_of_the_new_adapter_moved(stage2: Stage2, trained: Trained) -> None:
    started = stage2("fit", *ONE_STEP, "--model.init_args.lr=1e-30")
    new, old = (load_file(f / BEST / "adapter_model.safetensors") for f in (trained.fitted, started))
    assert new.keys() == old.keys()
    assert not [name for name in new if torch.equal(new[name], old[name])]


def test_fault_9_stage_1s_weights_are_the_same_bits_afterwards(trained: Trained) -> None:
    for path, content in trained.before.items():
        assert path.read_bytes() == content, path


def test_fault_9_both_adapters_load_in_plain_peft_and_give_the_tests_scores(stage2: Stage2, trained: Trained) -> None:
    distilled, best = str(stage2.files.distilled), str(trained.fitted / BEST)
    for folder in (distilled, best):
        alone = PeftModel.from_pretrained(base(stage2), folder)
        shapes = {name: p.shape for name, p in alone.named_parameters() if "lora_" in name}
        assert len(shapes) == len(load_file(f"{folder}/adapter_model.safetensors"))

    model = PeftModel.from_pretrained(base(stage2), distilled, adapter_name="distilled")
    model.load_adapter(best, adapter_name="recommendation")
    model.base_model.set_adapter(["distilled", "recommendation"])
    llava = model.eval().base_model.model
    processor = load_processor(str(stage2.files.model))
    items = read_items([stage2.files.folder / "items.json"], [stage2.files.folder / "images"])
    identity = store_identity(str(stage2.files.model), stage2.files.distilled, "five")
    store = ItemStore.open(stage2.files.folder / "item_store", identity, items.values())
    records = read_results(trained.tested)
    with torch.no_grad():
        for record in records[::5]:
            shown = [Shown(i, items[i].title, store.views(i)) for i in record["candidates_st"]]
            prompt = recommendation_prompt(record["context"], shown)
            visual = llava.model.multi_modal_projector(store.cls_tokens(record["candidates_st"]).float())
            for item, score in zip(record["candidates_st"], record["scores_st"], strict=True):
                assert plain_score(llava, processor, prompt, item, visual) == pytest.approx(score, abs=1e-3)


def plain_score(llava: Any, processor: Any, prompt: str, answer: str, visual: torch.Tensor) -> float:
    encoded = processor.tokenizer(prompt + answer, return_offsets_mapping=True)
    ids = torch.tensor([[*encoded["input_ids"], processor.tokenizer.eos_token_id]])
    start = next(i for i, (first, _) in enumerate(encoded["offset_mapping"]) if first >= len(prompt))
    embeds = fill_placeholders(llava.get_input_embeddings()(ids), ids, visual, placeholder_ids(processor))
    logits = llava.lm_head(llava.model.language_model(inputs_embeds=embeds).last_hidden_state)[0].log_softmax(-1)
    return sum(float(logits[i - 1, ids[0, i]]) for i in range(start, ids.shape[1]))


def test_fault_9_the_val_loss_is_the_mean_over_the_target_tokens(stage2: Stage2, trained: Trained) -> None:
    text = (trained.fitted / "val_metrics_epoch_2.txt").read_text()
    losses = {line.split(": ")[0]: float(line.split(": ")[1]) for line in text.splitlines()}
    assert 0 < losses["Val Loss"] < 20
    assert losses["Val PPL"] == pytest.approx(torch.tensor(losses["Val Loss"]).exp().item(), rel=1e-3)
    gain = losses["val_loss_shuffled_images"] - losses["Val Loss"]
    assert losses["visual_gain"] == pytest.approx(gain, abs=2e-6)
    # one sample for each distinct truth: none is lost, none counted twice
    assert losses["val_samples"] == sum(len(set(r["gt_items"])) for r in read_split(stage2, "valid"))
    best = stage2("validate", f"--model.init_args.adapter={trained.fitted / BEST}", "--data.init_args.batch_size=3")
    assert best.is_dir()


def test_fault_9_no_candidate_is_cut_off_a_long_prompt(stage2: Stage2, trained: Trained) -> None:
    option = f"--model.init_args.adapter={trained.fitted / BEST}"
    with pytest.raises(UserError, match=r"max_length is 100, but 10 candidates need \d+ tokens"):
        stage2("test", option, "--data.init_args.max_length=100")
    output = stage2("test", option, "--data.init_args.max_length=560")
    assert all(len(record["scores_st"]) == 10 for record in read_results(output))


def test_predictions_do_not_depend_on_the_batch(stage2: Stage2, trained: Trained) -> None:
    output = stage2(
        "test", f"--model.init_args.adapter={trained.fitted / BEST}", "--data.init_args.batch_size=4",
        "--data.init_args.num_workers=1",
    )  # fmt: skip
    for one, four in zip(read_results(trained.tested), read_results(output), strict=True):
        scores = [name for name in one if name.startswith("scores_")]
        assert len(scores) == 3
        for name in scores:
            assert one.pop(name) == pytest.approx(four.pop(name), abs=1e-3)
        assert one == four


@pytest.mark.slow
def test_training_twice_gives_the_same_weights(stage2: Stage2) -> None:
    first, second = (stage2("fit", *ONE_STEP) for _ in range(2))
    one, two = (load_file(f / BEST / "adapter_model.safetensors") for f in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_the_batch_is_split_without_changing_the_step(stage2: Stage2) -> None:
    lora = "--model.init_args.lora.dropout=0"
    split = stage2("fit", *ONE_STEP, lora, "--data.init_args.batch_size=1", "--trainer.accumulate_grad_batches=4")
    whole = stage2(
        "fit", *ONE_STEP, "--trainer.limit_train_batches=2", lora, "--data.init_args.batch_size=4",
        "--trainer.accumulate_grad_batches=1",
    )  # fmt: skip
    one, two = (load_file(f / BEST / "adapter_model.safetensors") for f in (split, whole))
    for name in one:
        assert torch.allclose(one[name], two[name], atol=2e-4), name


SCORED_OTHERWISE = ("scored_per_token", "no_images", "shuffled_images")


def test_metrics_equal_those_of_a_plain_script_on_the_written_results(stage2: Stage2, trained: Trained) -> None:
    records = read_results(trained.tested)
    raw = read_split(stage2, "test")
    assert [{k: r[k] for k in raw[0]} for r in records] == raw
    written = json.loads((trained.tested / "metrics.json").read_text())["groups"]
    assert set(written) == {"all", "home", "garden"}
    for group, entries in written.items():
        for kind, content in entries.items():
            chosen = [r for r in records if group in ("all", r["category"])]
            chosen = [r for r in chosen if kind == "overall" or len(set(r["gt_items"])) > 1]
            assert content["conversations"] == len(chosen)
            reachable = [bool(set(r["gt_items"]) & set(r["candidates_st"])) for r in chosen]
            assert content["ceilings"]["hit_ratio@1"] == pytest.approx(sum(reachable) / len(chosen))
            values = {way: {n: m["value"] for n, m in metrics.items()} for way, metrics in content["ways"].items()}
            for way in ("generated", "constrained", "scored", *SCORED_OTHERWISE, "first_candidate"):
                assert values[way] == pytest.approx(plain_metrics(chosen, way), abs=1e-9), (group, kind, way)
    with (trained.tested / "results_summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 7
    first = rows[0]
    assert float(first["hit_ratio@1"]) == written["all"]["overall"]["ways"][first["way"]]["hit_ratio@1"]["value"]


def plain_metrics(records: list[dict[str, Any]], way: str) -> dict[str, float]:
    hits = pair_hits = pairs = valid = within_3 = within_5 = 0
    reciprocal = gain = 0.0
    key = {
        "scored": "scores_st",
        "scored_per_token": "scores_st",
        "no_images": "scores_no_images_st",
        "shuffled_images": "scores_shuffled_images_st",
    }
    for record in records:
        candidates, truths = record["candidates_st"], record["gt_items"]
        if way in key:
            lengths = record["tokens_st"] if way == "scored_per_token" else [1] * len(candidates)
            scores = [score / length for score, length in zip(record[key[way]], lengths, strict=True)]
            scored = zip(scores, candidates, strict=True)
            order = [item for _, item in sorted(scored, key=lambda pair: -pair[0])]
            named = order[0]
            places = [place for place, item in enumerate(order, 1) if item in truths]
            within_3 += bool(places) and places[0] <= 3
            within_5 += bool(places) and places[0] <= 5
            reciprocal += 1 / places[0] if places else 0
            ideal = sum(1 / math.log2(1 + place) for place in range(1, len(set(truths)) + 1))
            gain += sum(1 / math.log2(1 + place) for place in places) / ideal
        elif way == "first_candidate":
            named = candidates[0]
        else:
            named = record["recommended_st" if way == "generated" else "constrained_st"]
        hits += named in truths
        pair_hits += truths.count(named)
        pairs += len(truths)
        valid += named in candidates
    n = len(records)
    metrics = {"hit_ratio@1": hits / n, "recall@1_micro": pair_hits / pairs, "valid_ratio": valid / n}
    if way in key:
        metrics |= {"hit_ratio@3": within_3 / n, "hit_ratio@5": within_5 / n, "mrr": reciprocal / n, "ndcg": gain / n}
    return metrics


def test_fault_10_candidates_of_any_form_are_scored_and_decoded(trained: Trained) -> None:
    records = read_results(trained.tested)
    assert all(record["constrained_st"] in record["candidates_st"] for record in records)
    scores = [s for r in records for s, i in zip(r["scores_st"], r["candidates_st"], strict=True) if i[0] != "B"]
    assert len(scores) > 10
    assert all(-1000 < score < 0 for score in scores)


def test_predict_ranks_the_candidates(stage2: Stage2, trained: Trained) -> None:
    output = stage2("predict", f"--model.init_args.adapter={trained.fitted / BEST}")
    predictions = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    by_place = {(p["category"], p["line"]): p["ranking"] for p in predictions}
    lines = {"home": 0, "garden": 0}
    for record in read_results(trained.tested):
        lines[record["category"]] += 1
        ranking = by_place[record["category"], lines[record["category"]]]
        scores = dict(zip(record["candidates_st"], record["scores_st"], strict=True))
        assert [r["item"] for r in ranking] == sorted(scores, key=lambda item: -scores[item])


def test_recommend_ranks_the_catalogues_best_matches(
    stage2: Stage2, trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*stage2.files.options(), f"--trainer.default_root_dir={trained.fitted}", "--json"]

    def asked(text: str, *more: str) -> list[Any]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))
        recommend.main([*options, *more])
        return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]

    record = read_results(trained.tested)[0]
    everyone = record["context"] + " kitchen towel number"  # the words of every title
    [answer] = asked(everyone, "--candidates=24", "--top=3")
    assert [set(product) for product in answer["products"]] == [
        {"item", "title", "image", "log_likelihood", "probability", "why"}
    ] * 3
    assert answer["latency_seconds"] > 0
    likelihoods = [product["log_likelihood"] for product in answer["products"]]
    assert likelihoods == sorted(likelihoods, reverse=True)
    everything = asked(everyone, "--candidates=24", "--top=24")[0]["products"]
    assert sum(product["probability"] for product in everything) == pytest.approx(1)
    assert len({product["item"] for product in everything}) == 24
    assert sum(product["image"] is None for product in everything) == 2
    titled = asked("number 17", "--candidates=1")[0]["products"]
    assert [product["title"] for product in titled] == ["Kitchen towel number 17"]
    assert len(asked("a red towel\nlarger\n\nnever read\n", "--chat")) == 2


def test_recommends_mistakes_are_named(stage2: Stage2, trained: Trained, tmp_path: Path) -> None:
    options = [*stage2.files.options(), f"--trainer.default_root_dir={trained.fitted}"]
    with pytest.raises(UserError, match=r"conversation file nowhere\.txt does not exist"):
        recommend.main([*options, "--conversation=nowhere.txt"])
    with pytest.raises(UserError, match=r"adapter .* does not exist; train one"):
        recommend.main([*options, f"--trainer.default_root_dir={tmp_path}"])
    with pytest.raises(UserError, match="candidates is 0"):
        recommend.main([*options, "--candidates=0"])


def test_users_mistakes_are_named(stage2: Stage2, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no conversation file .*lamps.*garden, home"):
        stage2("fit", "--data.init_args.categories=[lamps]")
    with pytest.raises(UserError, match=r"no candidates_mine \(it has candidates_st\)"):
        stage2("fit", "--data.init_args.candidates=candidates_mine")
    with pytest.raises(UserError, match=r"no item store for this model and adapter"):
        stage2("fit", f"--data.init_args.item_store={tmp_path}")
    with pytest.raises(UserError, match="holds no adapter"):
        stage2("fit", f"--model.init_args.distilled={tmp_path}")


def test_candidates_that_do_not_fit_are_listed_in_every_split(
    stage2: Stage2, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IDs are never cut: one conversation with long ones must not end a run."""
    original = encode_choice

    def long_for_one(tokenizer: Any, text: str, shown: Any, answers: Any, most: int) -> Any:
        tested = read_split(stage2, "test")[1]["candidates_st"]
        learned = read_split(stage2, "train")[2]["candidates_st"]
        own = {one.id for one in shown}
        return original(tokenizer, text, shown, answers, 30 if set(tested) == own or set(learned[1:]) <= own else most)

    monkeypatch.setattr(batches, "encode_choice", long_for_one)
    adapter = f"--model.init_args.adapter={trained.fitted / BEST}"
    for command, split in (("test", "test"), ("fit", "train")):
        output = stage2(command, *([adapter] if command == "test" else []))
        listed = [json.loads(line) for line in (output / "skipped_samples.jsonl").read_text().splitlines()]
        listed = [one for one in listed if one["split"] == split]
        assert {one["reason"] for one in listed} == {"too long for max_length"}
        if command == "test":
            assert len(read_results(output)) == len(read_split(stage2, "test")) - len(listed)


def test_a_prompt_for_which_nothing_fits_is_named(stage2: Stage2) -> None:
    with pytest.raises(UserError, match=r"max_length is 40, but .* candidates need \d+ tokens"):
        stage2("fit", "--data.init_args.max_length=40")


def read_results(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "test_results_candidates_st.jsonl").read_text().splitlines()]


def read_split(stage2: Stage2, split: str) -> list[dict[str, Any]]:
    lines: list[str] = []
    for category in ("home", "garden"):
        lines += (stage2.files.folder / category / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
