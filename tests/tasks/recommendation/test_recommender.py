"""The recommender on a tiny model: candidates with reasons, images of a wish, and what is said where none matches."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from lavic.catalogue.images import open_image
from lavic.commands import embed, recommend
from lavic.commands.options import read_task
from lavic.errors import UserError
from lavic.model.views import cut_views
from lavic.model.visual_tokens import Normalise
from lavic.retrieval.retriever import Candidate
from lavic.tasks.recommendation.recommender import NothingFound, Recommender, merged, seeker_turns
from tests.stage2_files import Stage2Files, write_stage2_files

SUBMISSION = "<submission>number 7 or 12 please</submission>\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Stage2Files:
    files = write_stage2_files(tmp_path_factory.mktemp("shop") / "files", tiny)
    items = json.loads((files.folder / "items.json").read_text())
    described = list(items)[9]
    items[described]["image_descriptions_llava_cleaned"] = {f"{described}_0.jpg": "A checkered rug with fringes."}
    (files.folder / "items.json").write_text(json.dumps(items))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[3])
        embed.main(files.options())
    return files


def made(files: Stage2Files, **options: Any) -> Recommender:
    task, data, _ = read_task(files.options(), "recommend", "")
    recommender = Recommender(task, data, options.pop("candidates", 5), torch.device("cpu"), **options)
    torch.manual_seed(0)
    for name, parameter in task.named_parameters():  # a new adapter changes nothing, and could be lost unseen
        if "lora_B.recommendation" in name:
            parameter.data.normal_(std=0.1)
    return recommender


@pytest.fixture(scope="module")
def recommender(files: Stage2Files) -> Recommender:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[3])
        return made(files)


def test_candidates_are_what_matches_and_say_why(recommender: Recommender) -> None:
    ranked = recommender.rank(SUBMISSION)
    ids = list(recommender.items)
    why = {one.item: one.why for one in ranked}
    assert why[ids[7]] == "matches 7, number"
    assert why[ids[12]] == "matches 12, number"
    assert len(ranked) == 5
    assert sum(one.probability for one in ranked) == pytest.approx(1)
    assert [one.log_likelihood for one in ranked] == sorted((one.log_likelihood for one in ranked), reverse=True)


def test_descriptions_are_searched_too(recommender: Recommender, files: Stage2Files) -> None:
    [found] = recommender.rank(seeker_turns(["Something checkered with fringes"]))
    assert found.item == list(recommender.items)[9]
    assert found.probability == 1


def test_titles_alone_do_not_find_what_a_description_says(files: Stage2Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    with pytest.raises(NothingFound, match="catalogue's titles matches"):
        made(files, indexed="titles").rank(seeker_turns(["Something checkered with fringes"]))


def test_an_images_lookalikes_are_candidates(recommender: Recommender, files: Stage2Files) -> None:
    item = list(recommender.items.values())[10]
    assert item.image is not None
    images, task = recommender._images, recommender._task
    tokens = images.tokens(item.image)

    # independently: every image through the tower again, by the cosine of the whole view's class token
    task_processor, normalise = images._processor.image_processor, Normalise(images._processor.image_processor)
    cosines = {}
    for other in recommender.items.values():
        if other.image is not None and recommender._encoder.store.views(other.id):
            pixels = normalise(cut_views(task_processor, open_image(other.image))[:1], torch.float32)
            with torch.no_grad():
                state = task.llava.model.vision_tower(pixels).last_hidden_state[0, 0]
            cosines[other.id] = float(cosine_similarity(state, tokens[0], dim=0))
    found = images.alike(tokens, 3)
    assert cosines[found[0].item] == pytest.approx(max(cosines.values()), abs=0.01)
    assert [one.score for one in found] == pytest.approx(sorted(cosines.values(), reverse=True)[:3], abs=0.01)

    ranked = recommender.rank(SUBMISSION, item.image)
    assert sum("looks like the image (cosine " in one.why for one in ranked) >= 2
    assert sum("matches " in one.why for one in ranked) >= 3


def test_an_images_description_leaves_the_adapters_as_they_were(recommender: Recommender, files: Stage2Files) -> None:
    before = recommender.likelihoods(SUBMISSION, list(recommender.items)[:4])
    image = next(item.image for item in recommender.items.values() if item.image)
    assert image is not None
    first = recommender._images.description(recommender._images.tokens(image))
    assert recommender._images.description(recommender._images.tokens(image)) == first
    assert torch.equal(recommender.likelihoods(SUBMISSION, list(recommender.items)[:4]), before)


def test_a_broken_image_of_a_wish_is_the_users_error(recommender: Recommender, tmp_path: Path) -> None:
    (tmp_path / "wish.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"wish\.jpg cannot be used"):
        recommender.rank(SUBMISSION, tmp_path / "wish.jpg")


def test_nothing_found_is_said_and_a_chat_goes_on(
    files: Stage2Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    (tmp_path / "adapter").mkdir()
    monkeypatch.setattr("lavic.commands.recommend.Recommender", lambda *a, **k: made(files))
    options = [*files.options(), f"--model.init_args.adapter={tmp_path / 'adapter'}", "--json"]
    monkeypatch.setattr("sys.stdin", io.StringIO("zebra\nkitchen towel\n"))
    assert recommend.main([*options, "--chat"]) == 0
    said = capsys.readouterr()
    [line] = said.out.splitlines()
    assert json.loads(line)["products"]
    assert said.err.count("Nothing in the catalogue's titles and descriptions matches") == 1
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("🎂".encode()), encoding="utf-8"))
    with pytest.raises(NothingFound):
        recommend.main(options)


def test_merged_takes_both_sources_in_turn_and_joins_reasons() -> None:
    found = [Candidate("a", 3, "words"), Candidate("b", 2, "words")]
    alike = [Candidate("c", 0.9, "looks"), Candidate("a", 0.8, "looks"), Candidate("d", 0.7, "looks")]
    chosen = merged(found, alike, 4)
    assert [(one.item, one.why) for one in chosen] == [
        ("a", "words; looks"), ("c", "looks"), ("b", "words"), ("d", "looks"),
    ]  # fmt: skip


def test_a_seekers_later_turns_are_the_seekers() -> None:
    assert (
        seeker_turns(["a lamp", "but blue\n"]) == "<submission>a lamp</submission>\n<submission>but blue</submission>\n"
    )
