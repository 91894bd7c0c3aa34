"""`python -m lavic export`: an adapter of any task, merged into a checkpoint that plain transformers and vLLM serve."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

from lavic.commands.flags import export_parser
from lavic.commands.quiet import quieten
from lavic.errors import UserError
from lavic.files.json_entries import read_json
from lavic.model.adapters.merging import merge_adapters
from lavic.model.adapters.metadata import read_metadata
from lavic.model.adapters.saved_adapter import CONFIG


def main(argv: list[str]) -> int:
    """The command line; where the checkpoint is, and how close to the adapter's logits, goes to standard output."""
    quieten()
    options = export_parser().parse(argv)
    folders = [Path(folder) for folder in (options.distilled, options.adapter) if folder is not None]
    base = options.base or base_of(folders[-1])
    card = model_card(base, folders)
    difference = merge_adapters(folders, base, Path(options.out), options.dtype, card, options.any_base)
    if options.json:
        print(json.dumps({"folder": str(options.out), "base": base, "largest_logit_difference": difference}))
    else:
        print(f"{options.out}: merged into {base}; no logit differs by more than {difference:.2g} in float32")
    return 0


def base_of(folder: Path) -> str:
    """The checkpoint that an adapter was trained on, by its own word.

    Raises:
        UserError: it does not say.
    """
    about = read_metadata(folder)
    if about is not None:
        return about.base
    try:
        return str(read_json(folder / CONFIG)["base_model_name_or_path"])
    except (UserError, OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds no adapter that names its base; give one that does, or --base.") from None


def model_card(base: str, folders: list[Path]) -> str:
    """The checkpoint's README.md."""
    versions = {package: version(package) for package in ("torch", "transformers", "peft")}
    versions["python"] = platform.python_version()
    tasks = [about.task if (about := read_metadata(folder)) else None for folder in folders]
    lines = "\n".join(f"- `{f}`{f' (task {t})' if t else ''}" for f, t in zip(folders, tasks, strict=True))
    stage2 = (
        "\nItems enter as class tokens, one a view, written over `<ItemImageEmb1>` to `<ItemImageEmb5>`.\n"
        if {"distillation", "recommendation"} & set(tasks)
        else ""
    )
    return f"""---
base_model: {base}
library_name: transformers
tags: [lavic, llava]
---
# `{base}` with its adapters merged

A plain checkpoint: no PEFT is needed to load it. Merged into the base's own weights, in float32, then rounded once:

{lines}
{stage2}
```python
from transformers import AutoModelForImageTextToText, AutoProcessor

folder = "."  # this directory
model = AutoModelForImageTextToText.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
```

## Versions

{", ".join(f"{name} {number}" for name, number in versions.items())}
"""
