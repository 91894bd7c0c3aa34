"""The published validation conversations through stage 2's commands, on a tiny model with random weights.

They are read beside the repository, or where LAVIC_REAL_DATA says. A few are run here; `LAVIC_REAL_EVERY=1` runs all
1,923 of them, in about half an hour of one core for each kind of candidates.
"""

import json
import logging
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lavic.commands import embed
from lavic.commands import fit as cli
from lavic.demo.toy_llava import TINY, new_model, new_processor, save_checkpoint
from lavic.demo.toy_tokenizer import train_tokenizer
from lavic.tasks.recommendation.batches import CandidatesBatch
from lavic.tasks.recommendation.task import Recommendation
from tests.independent_recommendation_metrics import all_metrics
from tests.tasks.distillation.test_real_data import REAL, ROOT

DOMAINS = ("all_beauty", "amazon_fashion", "amazon_home")
EVERY = int(os.environ.get("LAVIC_REAL_EVERY", "60"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (REAL / DOMAINS[0] / "valid.jsonl").is_file(),
        reason=f"the published conversations are not at {REAL}; set LAVIC_REAL_DATA to their folder",
    ),
]


def conversations(domain: str) -> list[dict[str, Any]]:
    """Every `EVERY`-th one, and some that name an item whose ID does not start with B."""
    lines = [json.loads(line) for line in (REAL / domain / "valid.jsonl").open(encoding="utf-8")]
    chosen = []
    for number, line in enumerate(lines):
        named = line["gt_items"] + (line["candidates_st"] + line["candidates_gpt_large"] if number < 100 else [])
        if number % EVERY == 0 or not all(item.startswith("B") for item in named):
            chosen.append(line)
    return chosen


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command line's options; every second item has an image, and all have a title of some ten words."""
    folder = tmp_path_factory.mktemp("real")
    rng = random.Random(0)
    lines = {domain: conversations(domain) for domain in DOMAINS}
    texts = [str(line["context"]) for several in lines.values() for line in several]
    tokenizer = train_tokenizer(texts, max_tokens=2000)
    torch.manual_seed(0)
    save_checkpoint(folder / "model", new_model(tokenizer, TINY), new_processor(tokenizer, TINY))
    words = " ".join(texts).split()
    items: set[str] = set()
    for domain, several in lines.items():
        (folder / "data" / domain).mkdir(parents=True)
        text = "".join(json.dumps(line) + "\n" for line in several)
        (folder / "data" / domain / "test.jsonl").write_text(text, encoding="utf-8")
        for line in several:
            items.update(line["candidates_st"], line["candidates_gpt_large"])
    titles = {item: {"title": " ".join(rng.sample(words, rng.randint(4, 20)))[:200]} for item in sorted(items)}
    (folder / "items.json").write_text(json.dumps(titles), encoding="utf-8")
    (folder / "images").mkdir()
    for item in sorted(items)[::2]:
        colour = tuple(rng.randrange(256) for _ in range(3))
        Image.new("RGB", (rng.randint(40, 200), rng.randint(40, 200)), colour).save(folder / "images" / f"{item}_0.jpg")
    data = "--data.init_args."
    before = logging.getLogger().handlers[:]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        found = [
            "--config=configs/recommend.yaml",
            f"--model.init_args.base.name={folder / 'model'}", "--model.init_args.distilled=null",
            f"{data}data_dir={folder / 'data'}", f"{data}categories=[{','.join(DOMAINS)}]",
            f"{data}metadata=[{folder / 'items.json'}]", f"{data}images_dirs=[{folder / 'images'}]",
            f"{data}item_store={folder / 'store'}", f"{data}num_workers=0", f"{data}batch_size=4",
            f"--trainer.default_root_dir={folder / 'out'}", f"--logs_dir={folder / 'logs'}",
        ]  # fmt: skip
        embed.main(found)
        yield found
    logging.getLogger().handlers[:] = before


@pytest.mark.parametrize("candidates", ["candidates_st", "candidates_gpt_large"])
def test_all_domains_to_the_end_and_the_numbers_of_an_independent_script(
    options: list[str], candidates: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []
    read = Recommendation.read

    def listening(self: Recommendation, batch: CandidatesBatch) -> Any:
        assert batch["input_ids"].shape[1] <= 2048
        prompts.extend(self.processor.tokenizer.batch_decode(batch["input_ids"]))
        return read(self, batch)

    monkeypatch.setattr(Recommendation, "read", listening)
    cli.main(["test", *options, f"--data.init_args.candidates={candidates}", "--trainer.accelerator=cpu"])
    output = Path(next(o for o in options if o.startswith("--trainer.default_root_dir")).partition("=")[2])
    metrics = json.loads((output / "metrics.json").read_text())
    results = output / f"test_results_{candidates}.jsonl"
    rows = [json.loads(line) for line in results.open(encoding="utf-8")]  # texts hold other line ends than \n
    raw = [line for domain in DOMAINS for line in conversations(domain)]
    assert [{key: row[key] for key in line} for row, line in zip(rows, raw, strict=True)] == raw
    compared = 0
    for group, by_entries in all_metrics(results).items():
        for entries, ways in by_entries.items():
            reported = metrics["groups"][group][entries]
            for way, values in ways.items():
                for name, value in values.items():
                    own = reported["ceilings"][name] if way == "ceiling" else reported["ways"][way][name]["value"]
                    assert own == pytest.approx(value, abs=1e-12), (group, entries, way, name)
                    compared += 1
    assert compared > 100
    name = candidates.removeprefix("candidates_")
    assert all(row[f"constrained_{name}"] in row[candidates] for row in rows)
    isbn_like = [row for row in rows if any(not item.startswith("B") for item in row[candidates])]
    assert isbn_like
    assert all(len(row[f"scores_{name}"]) == len(row[candidates]) for row in isbn_like)
    reachable = sum(bool(set(line["gt_items"]) & set(line[candidates])) for line in raw)
    assert metrics["groups"]["all"]["overall"]["ceilings"]["hit_ratio@1"] == pytest.approx(reachable / len(raw))
    assert len(prompts) == 3 * len(raw)  # with the images, without any, and with others'
    named = [frozenset(re.findall(r"\b[A-Z0-9]{10}\b", prompt)) for prompt in prompts]
    whole = Counter(named)
    for line in raw:
        wanted = frozenset(line[candidates])
        assert whole[wanted] >= 3 or sum(wanted <= several for several in named) >= 3, "a candidate was cut off"
    print(f"{len(rows)} conversations, {compared} numbers equal")
