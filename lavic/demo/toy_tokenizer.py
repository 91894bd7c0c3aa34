"""A Llama tokenizer of a few hundred tokens, trained on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterable
from string import ascii_letters, digits, punctuation

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer

IMAGE_TOKEN = "<image>"
PAD_TOKEN = "<pad>"


def train_tokenizer(texts: Iterable[str], max_tokens: int) -> LlamaTokenizer:
    """Trains the tokenizer class of the real checkpoint (byte-pair merges, byte fallback) on `texts`.

    The order of the vocabulary is the real one too: `<unk>`, `<s>`, `</s>`, 256 bytes, the learned tokens,
    and at the end `<image>` and `<pad>`. No learned token crosses a space, a line break or a punctuation
    mark, so that frequent words are one token wherever they stand. A character that neither ASCII nor `texts`
    hold becomes bytes, as in the real tokenizer.

    Args:
        texts: what the merges are learned from.
        max_tokens: upper bound of the learned tokens; the vocabulary has at most 261 more.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True),
            pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}▁]"), "isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=max_tokens,
        initial_alphabet=list(ascii_letters + digits + punctuation),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    # The bytes' tokens cannot be given to the trainer: as special tokens they would be matched in the text.
    learned = sorted(learner.get_vocab().items(), key=lambda entry: entry[1])
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(t for t, _ in learned)]
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    tokenizer = LlamaTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        add_bos_token=True,
        model_max_length=4096,
    )
    tokenizer.add_special_tokens({"pad_token": PAD_TOKEN, "extra_special_tokens": [IMAGE_TOKEN]})
    return tokenizer
