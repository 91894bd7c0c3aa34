"""The demo's last word: it is only said when the numbers say so."""

import io
import json
import shlex
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console

from lavic.commands import web
from lavic.demo import run
from lavic.demo.stage2 import DEFAULT, recommend_sample, shop_command, show_recommendation, show_whole_catalogue
from lavic.errors import UserError

ROOT_DIR = "--trainer.default_root_dir"


def write_metrics(folder: Path, scored: float, control: float, valid: float = 1.0) -> None:
    def way(hit: float, share: float = 1.0) -> dict[str, dict[str, float]]:
        return {
            "hit_ratio@1": {"value": hit, "low": hit - 0.05, "high": hit + 0.05},
            "valid_ratio": {"value": share, "low": share, "high": share},
        }

    ways = {"constrained": way(scored, valid), "scored": way(scored)}
    ways |= {"no_images": way(0.1), "shuffled_images": way(control)}
    overall = {"conversations": 200, "ceilings": {"hit_ratio@1": 0.95}, "ways": ways}
    (folder / "metrics.json").write_text(json.dumps({"groups": {"all": {"overall": overall}}}))


def show(folder: Path) -> str:
    console = Console(file=io.StringIO(), width=120)
    show_recommendation(folder, console, 60)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_success_needs_intervals_that_do_not_overlap(tmp_path: Path) -> None:
    write_metrics(tmp_path, scored=0.5, control=0.2)
    assert "above both controls" in show(tmp_path)
    write_metrics(tmp_path, scored=0.29, control=0.2)
    with pytest.raises(UserError, match="not clearly above shuffled_images"):
        show(tmp_path)
    write_metrics(tmp_path, scored=0.5, control=0.2, valid=0.99)
    with pytest.raises(UserError, match="not clearly above invalid answers"):
        show(tmp_path)


def test_the_whole_catalogue_is_shown_by_what_is_searched(tmp_path: Path) -> None:
    for indexed, hit in (("titles", 0.1), ("both", 0.4)):
        interval = {"value": hit, "low": hit - 0.05, "high": hit + 0.05}
        way = {"hit_ratio@1": interval, "mrr": interval}
        report = {
            "retrieval": {"recall@10": {**interval, "value": hit + 0.2}},
            "ways": {"scored": way, "no_images": way},
        }
        (tmp_path / f"whole_catalogue_{indexed}").mkdir()
        (tmp_path / f"whole_catalogue_{indexed}" / "end_to_end.json").write_text(json.dumps({"all": report}))
        rows = [
            {"category": "a", "context": f"<submission>{n}</submission>", "gt_items": ["x"],
             "ranks": {"scored": 1 if n < 100 * hit else None, "no_images": 1 if n < 5 else 2}}
            for n in range(100)
        ]  # fmt: skip
        written = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"whole_catalogue_{indexed}" / "end_to_end_results.jsonl").write_text(written)
    console = Console(file=io.StringIO(), width=80, soft_wrap=True)
    show_whole_catalogue(tmp_path, console)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    scored = [line for line in told.splitlines() if "scored" in line]
    assert "0.100 (0.050 to 0.150)" in scored[0]
    assert "by titles: recall@10 0.300 (0.050 to 0.150)" in told
    assert "by titles and descriptions: recall@10 0." in told
    assert "0.400 (0.350 to 0.450)" in scored[1]
    assert "less titles alone, on the same conversations: +0.300 (+0.2" in told
    assert "less no images, on the same conversations: +0.350 (+0.2" in told


def test_the_last_line_opens_the_shop_of_the_demos_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for executable, found, typed in (
        (Path.cwd() / ".venv/bin/python3", "/usr/bin/python", ".venv/bin/python3"),
        (Path("/env/bin/python3"), "/env/bin/python", "python"),
        (Path("/env/bin/python3"), None, "/env/bin/python3"),
    ):
        monkeypatch.setattr("sys.executable", str(executable))
        monkeypatch.setattr("shutil.which", lambda name, found=found: found)
        assert shop_command(DEFAULT) == f"{typed} -m lavic web --demo"
    elsewhere = shop_command(Path("/my demo"))
    assert "--demo" not in shlex.split(elsewhere)
    assert "/my demo/toy_llava" in shlex.split(elsewhere)
    assert shlex.split(elsewhere)[-2:] == ["--trainer.default_root_dir", "/my demo/recommendation/shop"]


def test_the_whole_catalogue_is_tested_by_what_learned_from_retrieval_and_the_shop_opens_it(tmp_path: Path) -> None:
    """Given candidates are of one kind; what learned from them alone was below retrieval's own order."""
    (tmp_path / "distilled" / "vision_lora_adapter_best").mkdir(parents=True)
    ran: list[list[str]] = []
    recommend_sample(tmp_path, 0, run=lambda *arguments: ran.append([str(a) for a in arguments]))
    trained = {given[given.index(ROOT_DIR) + 1] for given in ran if given[1] == "fit" and "retrieved:10" in given}
    assert len(trained) == 1
    whole = [given for given in ran if given[1] == "test" and "retrieved:10" in " ".join(given)]
    assert len(whole) == 2
    for given in whole:
        adapter = Path(given[given.index("--model.init_args.adapter") + 1])
        assert {str(adapter.parent)} == trained
    assert shlex.split(shop_command(tmp_path))[-1] in trained
    default = trained.pop().replace(str(tmp_path), str(DEFAULT))
    assert web.DEMO[-2:] == (ROOT_DIR, default), "what `web --demo` opens"


def test_stage_2_asks_for_stage_1_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the demo without --stage first"):
        recommend_sample(tmp_path, 0, run=lambda *arguments: None)


def test_a_commands_lists_are_printed_with_their_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    """`[out_demo/data/...]` vanished as a style, and `[/tmp/...]` was an error as the end of one."""
    console = Console(file=io.StringIO(), width=120)
    monkeypatch.setattr(run, "console", console)
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: Namespace(returncode=0))
    run._run("lavic", "embed", "--data.init_args.metadata", "[/tmp/one.json,two.json]")
    assert "--data.init_args.metadata [/tmp/one.json,two.json]" in console.file.getvalue()  # type: ignore[attr-defined]
