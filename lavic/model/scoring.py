"""Prompts run once, what they start with once for all; candidates scored and answers decoded on their keys and values.

All candidates' answers lie side by side in one sequence after the prompt, under a mask that lets each see the
prompt and itself, at the positions it would have alone. So a conversation costs one pass over its prompt and
one over some hundred tokens, instead of one pass a candidate, and its keys and values are never copied.

Shapes: B conversations, T prompt tokens, S answer tokens side by side, V views in the batch, D the language
model's width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, LlavaNextForConditionalGeneration

from lavic.model.sharding import is_sharded
from lavic.model.visual_tokens import fill_placeholders

Answers = Sequence[Sequence[int]]  # one conversation's possible continuations, each ending with EOS


class PromptState:
    """A batch of prompts after one forward pass. Nothing asked of it changes it.

    Args:
        llava: the model, in evaluation mode.
        input_ids: (B, T), padded on either side.
        attention_mask: (B, T).
        visual_tokens: (V, D), in the order of the placeholders.
        placeholder_ids: token ids of the placeholders.
    """

    def __init__(
        self,
        llava: LlavaNextForConditionalGeneration,
        input_ids: Tensor,
        attention_mask: Tensor,
        visual_tokens: Tensor,
        placeholder_ids: Sequence[int],
    ) -> None:
        embeds = llava.get_input_embeddings()(input_ids)
        embeds = fill_placeholders(embeds, input_ids, visual_tokens, placeholder_ids)
        self._llava, self._mask = llava, attention_mask
        self._lengths = attention_mask.sum(dim=1)  # (B,)
        self._cache = DynamicCache()
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        # Each pass of sharded weights waits for the other processes, which may have rows that share nothing.
        shares = len(input_ids) > 1 and not is_sharded(llava)
        start = _common_start(input_ids, attention_mask, placeholder_ids) if shares else 0
        if start:
            self._run(embeds[:1, :start], attention_mask[:1, :start], positions[:1, :start])
            self._cache.batch_repeat_interleave(len(input_ids))
        hidden = self._run(embeds[:, start:], attention_mask, positions[:, start:])
        last = (attention_mask * torch.arange(input_ids.shape[1], device=input_ids.device)).argmax(dim=1) - start
        self._next = llava.lm_head(hidden[torch.arange(len(last), device=last.device), last]).float()  # (B, vocab)

    def scores(self, answers: Sequence[Answers], unscored: Sequence[int]) -> list[Tensor]:
        """Log-likelihood in nats of every answer, EOS included: for each conversation a (C,) float32 tensor.

        Args:
            answers: the continuations of each conversation's prompt.
            unscored: for each conversation, how many leading tokens of its answers are given, not predicted.
        """
        device = self._mask.device
        # the last token of an answer is predicted, but predicts nothing: it is not run
        length = max(1, *(sum(len(a) - 1 for a in several) for several in answers))
        tokens = torch.zeros((len(answers), length), dtype=torch.int64)
        targets = torch.zeros_like(tokens)
        offsets = torch.zeros_like(tokens)
        owners = torch.full_like(tokens, -1)
        for row, several in enumerate(answers):
            place = 0
            for owner, answer in enumerate(several):
                run = slice(place, place + len(answer) - 1)
                tokens[row, run] = torch.tensor(answer[:-1])
                targets[row, run] = torch.tensor(answer[1:])
                offsets[row, run] = torch.arange(len(answer) - 1)
                owners[row, run] = owner
                place = run.stop
        tokens, targets, offsets, owners = (t.to(device) for t in (tokens, targets, offsets, owners))

        same = owners.unsqueeze(2) == owners.unsqueeze(1)  # (B, S, S)
        own = same & torch.ones_like(same).tril()
        prompt = self._mask.bool().unsqueeze(1).expand(-1, length, -1)
        visible = torch.cat([prompt, own], dim=2).unsqueeze(1)  # (B, 1, S, T + S)
        embeds = self._llava.get_input_embeddings()(tokens)
        blocked = torch.zeros(visible.shape, dtype=embeds.dtype, device=device)
        blocked.masked_fill_(~visible, torch.finfo(embeds.dtype).min)
        hidden = self._run(embeds, blocked, self._lengths.unsqueeze(1) + offsets)
        self._cache.crop(-length)

        logits = self._llava.lm_head(hidden).float()
        following = -torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        first = self._next.log_softmax(dim=-1)
        results = []
        for row, several in enumerate(answers):
            starts = torch.tensor([answer[0] for answer in several], device=device)
            given = unscored[row]
            counted = following[row] * ((owners[row] >= 0) & (offsets[row] >= given - 1))
            total = first[row, starts] if given == 0 else torch.zeros(len(several), device=device)
            results.append(total.index_add(0, owners[row].clamp(min=0), counted))
        return results

    def decode(self, max_new_tokens: int, eos_id: int, allowed: Sequence[Answers] | None = None) -> list[list[int]]:
        """Greedy continuations, without EOS; at most `max_new_tokens` tokens, EOS counted.

        With `allowed`, each is exactly one of its conversation's answers: at every step only the tokens that
        some answer continues with compete.
        """
        logits, mask = self._next, self._mask
        found: list[list[int]] = [[] for _ in range(len(mask))]
        open_rows = set(range(len(mask)))
        steps = max(len(a) for several in allowed for a in several) if allowed else max_new_tokens
        taken = 0
        for step in range(steps):
            if allowed is not None:
                logits = _only_allowed(logits, allowed, found, eos_id)
            chosen = logits.argmax(dim=-1)
            for row, token in enumerate(chosen.tolist()):
                if row in open_rows and token != eos_id:
                    found[row].append(token)
                else:
                    open_rows.discard(row)
            if not open_rows or step == steps - 1:
                break
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            embeds = self._llava.get_input_embeddings()(chosen.unsqueeze(1))
            hidden = self._run(embeds, mask, (self._lengths + step).unsqueeze(1))
            taken += 1
            logits = self._llava.lm_head(hidden[:, -1]).float()
        if taken:
            self._cache.crop(-taken)
        return found

    def _run(self, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        hidden: Tensor = self._llava.model.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden


def _common_start(input_ids: Tensor, attention_mask: Tensor, placeholder_ids: Sequence[int]) -> int:
    """How many tokens all rows begin with, images and each row's last token left out."""
    shown = torch.isin(input_ids, torch.tensor(list(placeholder_ids), device=input_ids.device))
    alike = (input_ids == input_ids[:1]) & attention_mask.bool() & ~shown
    count = int(alike.all(dim=0).cumprod(dim=0).sum())
    return min(count, int(attention_mask.sum(dim=1).min()) - 1)


def _only_allowed(logits: Tensor, allowed: Sequence[Answers], found: list[list[int]], eos_id: int) -> Tensor:
    """Logits with all but the next tokens of answers that begin with what was found set to minus infinity."""
    blocked = torch.full_like(logits, -torch.inf)
    for row, several in enumerate(allowed):
        begun = len(found[row])
        going_on = {a[begun] for a in several if len(a) > begun and list(a[:begun]) == found[row]}
        places = torch.tensor(sorted(going_on) or [eos_id], device=logits.device)
        blocked[row, places] = logits[row, places]
    return blocked
