"""One name for a module through all releases of transformers, so that adapters outlive them.

The LLaVA of transformers before 4.52 had `vision_tower`, `multi_modal_projector` and `language_model.model` at its
root, where they are now under `model`; CLIP had one level more, `vision_model`, before 5; LLaVA's own code calls the
projector `mm_projector` and has the language model's layers under `model`. An adapter's weights carry such names.
"""

import re
from collections.abc import Iterable

from torch import nn

OLD_TO_NEUTRAL = (  # in this order, each on what the one before left
    (r"^base_model\.model\.", ""),
    (r"^language_model\.lm_head\b", "lm_head"),
    (r"^language_model\.model\.", "language_model."),
    (r"^model\.(?=vision_tower\.|multi_modal_projector\.|language_model\.|image_newline)", ""),
    (r"^model\.(?=layers\.|embed_tokens\b|norm\.)", "language_model."),
    (r"^model\.mm_projector\.0\b", "multi_modal_projector.linear_1"),
    (r"^model\.mm_projector\.2\b", "multi_modal_projector.linear_2"),
    (r"^vision_tower\.vision_tower\.", "vision_tower."),
    (r"^vision_tower\.vision_model\.", "vision_tower."),
)


def neutral(name: str) -> str:
    """A module's or parameter's name without what differs between releases."""
    for old, new in OLD_TO_NEUTRAL:
        name = re.sub(old, new, name)
    return name


class Renaming:
    """Finds the names of `model`, a LLaVA without adapters, that saved names mean.

    Args:
        model: whose names are meant.
    """

    def __init__(self, model: nn.Module) -> None:
        names = [name for name, _ in model.named_modules()]
        names += [name for name, _ in model.named_parameters(remove_duplicate=False)]
        meant: dict[str, list[str]] = {}
        for name in names:
            meant.setdefault(neutral(name), []).append(name)
        self._meant = {key: several[0] for key, several in meant.items() if len(several) == 1}

    def find(self, saved: str) -> str | None:
        """The model's name for a saved one; None where there is none, or more than one."""
        return self._meant.get(neutral(saved))

    def find_all(self, saved: Iterable[str]) -> dict[str, str | None]:
        """The same for several; two that would become one are None, since which is meant is not known."""
        found = {name: self.find(name) for name in saved}
        meant = list(found.values())
        return {name: new if meant.count(new) == 1 else None for name, new in found.items()}
