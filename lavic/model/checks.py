"""All that a command is to load, looked at on the disk before anything of it is loaded."""

from collections.abc import Iterable
from pathlib import Path

from lavic.model.adapters.saved_adapter import read_saved_adapter
from lavic.model.base_model import BaseModel
from lavic.model.loading import build_on_meta, check_weights, fit_embeddings, load_config
from lavic.model.processor import LlavaAnyProcessor, check_processor


def check_files(base: BaseModel, processor: LlavaAnyProcessor, adapters: Iterable[Path] = ()) -> None:
    """Compares a checkpoint, the processor that prepares for it, and the adapters that are put on it.

    Files are read no further than their headers, so that seven billion parameters take about a second.

    Args:
        base: the checkpoint.
        processor: as the command uses it.
        adapters: their directories.

    Raises:
        UserError: a file is missing, cut short or broken, or two that are to work together do not fit.
    """
    config = load_config(base.name)
    check_processor(processor, config, base.name)
    llava = build_on_meta(config)
    check_weights(base.name, llava)
    fit_embeddings(llava, len(processor.tokenizer))
    llava.name_or_path = base.name
    for folder in adapters:
        read_saved_adapter(llava, folder, any_base=base.any_base)
