"""Scores and decodings from shared keys and values against one plain forward pass a candidate."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration

from lavic.batching.padding import pad_left
from lavic.demo.toy_llava import tiny_checkpoint
from lavic.model.scoring import PromptState
from lavic.model.visual_tokens import fill_placeholders

PLACEHOLDERS = (5, 6)
EOS = 2


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> LlavaNextForConditionalGeneration:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint(folder)
    model = LlavaNextForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        model.lm_head.weight *= 20  # far from uniform, so that a wrong position or mask shows
    return model


class Case:
    def __init__(self, width: int, seed: int = 0, batch: int = 4, common: int = 7) -> None:
        rng = random.Random(seed)
        torch.manual_seed(seed)
        start = [1, *rng.choices(range(7, 260), k=common)]
        self.prompts = [[*start, *rng.choices(range(7, 260), k=rng.randint(4, 30)), 5, 6, 9] for _ in range(batch)]
        self.visual = [torch.randn(2, width) for _ in range(batch)]
        self.answers = [
            [[*rng.choices(range(7, 260), k=rng.randint(1, 6)), EOS] for _ in range(rng.randint(1, 5))]
            for _ in range(batch)
        ]

    def state(self, llava: Any, rows: range, left: bool) -> PromptState:
        batch = pad_left([self.prompts[i] for i in rows], 0)
        if not left:
            for i, row in enumerate(rows):
                batch["input_ids"][i] = 0
                batch["input_ids"][i, : len(self.prompts[row])] = torch.tensor(self.prompts[row])
                batch["attention_mask"][i] = torch.arange(batch["input_ids"].shape[1]) < len(self.prompts[row])
        visual = torch.cat([self.visual[i] for i in rows])
        return PromptState(llava, batch["input_ids"], batch["attention_mask"], visual, PLACEHOLDERS)


def plain_logits(llava: Any, tokens: list[int], visual: Tensor) -> Tensor:
    ids = torch.tensor([tokens])
    embeds = fill_placeholders(llava.get_input_embeddings()(ids), ids, visual, PLACEHOLDERS)
    logits: Tensor = llava.lm_head(llava.model.language_model(inputs_embeds=embeds).last_hidden_state)[0]
    return logits


def plain_score(llava: Any, prompt: list[int], answer: list[int], visual: Tensor, given: int) -> float:
    logits = plain_logits(llava, prompt + answer, visual).log_softmax(-1)
    return sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(answer) if i >= given)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
@torch.no_grad()
def test_scores_equal_one_forward_pass_a_candidate(llava: Any, batch: int, left: bool) -> None:
    case = Case(llava.config.text_config.hidden_size)
    unscored = [0, 1, 0, 0]
    for start in range(0, 4, batch):
        rows = range(start, start + batch)
        state = case.state(llava, rows, left)
        for _ in range(2):  # asking changes nothing
            scores = state.scores([case.answers[i] for i in rows], [unscored[i] for i in rows])
            for i, row in enumerate(rows):
                plain = [
                    plain_score(llava, case.prompts[row], answer, case.visual[row], unscored[row])
                    for answer in case.answers[row]
                ]
                assert scores[i].tolist() == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
@torch.no_grad()
def test_decoding_equals_the_plain_greedy_one(llava: Any, batch: int, left: bool) -> None:
    case = Case(llava.config.text_config.hidden_size, seed=1)
    for start in range(0, 4, batch):
        rows = range(start, start + batch)
        state = case.state(llava, rows, left)
        state.scores([case.answers[i] for i in rows], [0] * batch)
        free = state.decode(7, EOS)
        constrained = state.decode(7, EOS, [case.answers[i] for i in rows])
        for i, row in enumerate(rows):
            plain: list[int] = []
            while len(plain) < 7:
                token = int(plain_logits(llava, case.prompts[row] + plain, case.visual[row])[-1].argmax())
                if token == EOS:
                    break
                plain.append(token)
            assert free[i] == plain
            chosen: list[int] = []
            while True:
                logits = plain_logits(llava, case.prompts[row] + chosen, case.visual[row])[-1]
                allowed = {a[len(chosen)] for a in case.answers[row] if a[: len(chosen)] == chosen}
                token = max(allowed, key=lambda t: float(logits[t]))
                if token == EOS:
                    break
                chosen.append(token)
            assert constrained[i] == chosen


@torch.no_grad()
def test_what_prompts_start_with_is_run_once(llava: Any) -> None:
    case = Case(llava.config.text_config.hidden_size)
    tokens: list[int] = []
    watch = llava.model.language_model.layers[0].mlp.register_forward_hook(
        lambda _module, _inputs, out: tokens.append(out.shape[0] * out.shape[1])
    )
    case.state(llava, range(4), left=False)
    watch.remove()
    assert tokens == [8, 4 * (max(map(len, case.prompts)) - 8)]


@pytest.mark.parametrize("prompt", [[1, 9, 30, 31], [1, 9, 5, 6, 31]], ids=["text alone", "with other images"])
@torch.no_grad()
def test_prompts_of_the_same_tokens(llava: Any, prompt: list[int]) -> None:
    case = Case(llava.config.text_config.hidden_size, batch=2)
    case.prompts = [prompt] * 2
    if 5 not in prompt:
        case.visual = [case.visual[0][:0]] * 2
    scores = case.state(llava, range(2), left=False).scores(case.answers, [0, 0])
    for row, found in enumerate(scores):
        plain = [plain_score(llava, prompt, answer, case.visual[row], 0) for answer in case.answers[row]]
        assert found.tolist() == pytest.approx(plain, abs=1e-4)


@torch.no_grad()
def test_an_answer_that_begins_another_can_still_be_either(llava: Any) -> None:
    case = Case(llava.config.text_config.hidden_size, seed=2, batch=1)
    state = case.state(llava, range(1), left=False)
    scores = state.scores([[[40, EOS], [40, 41, EOS]]], [0])[0]
    plain = [plain_score(llava, case.prompts[0], answer, case.visual[0], 0) for answer in ([40, EOS], [40, 41, EOS])]
    assert scores.tolist() == pytest.approx(plain, abs=1e-4)
    logits = plain_logits(llava, [*case.prompts[0], 40], case.visual[0])[-1]
    expected = [40] if logits[EOS] > logits[41] else [40, 41]
    assert state.decode(5, EOS, [[[40, EOS], [40, 41, EOS]]])[0] == expected
