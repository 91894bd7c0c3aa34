"""A small tokenizer of Mistral's kind: byte-fallback BPE without word splitting, so merges cross anything."""

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from lavic.model.text import PLACEHOLDERS, TEMPLATES


def toy_tokenizer(extra_text: tuple[str, ...] = (), padding_side: str = "right") -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>", "<image>", *(f"<0x{i:02X}>" for i in range(256))],
        initial_alphabet=[chr(i) for i in range(32, 127)],
        show_progress=False,
    )
    template = TEMPLATES["recommendation"]
    tokenizer.train_from_iterator([str(template["head"]), TEMPLATES["distillation"], *extra_text], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side=padding_side,
    )
    fast.add_tokens([AddedToken(token, normalized=False, special=True) for token in PLACEHOLDERS], special_tokens=True)
    return fast
