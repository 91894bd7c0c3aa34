"""An image that a person shows with a wish ("like this, but blue"): what it looks like, and what it shows in words.

The published prompt has no place for a seeker's image. Its CLS tokens, which the item store holds of every item too,
find the items that look alike; the description that the distilled vision lets the language model write of it, without
stage 2's adapter, becomes part of what the seeker says.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lavic.catalogue.images import BrokenImage, open_image
from lavic.errors import UserError
from lavic.model.adapters.stacking import DISTILLED, RECOMMENDATION
from lavic.model.scoring import PromptState
from lavic.model.text import distillation_prompt
from lavic.model.views import cut_views
from lavic.model.visual_tokens import Normalise, cls_tokens
from lavic.retrieval.retriever import Candidate
from lavic.tasks.recommendation.item_store import ItemStore
from lavic.tasks.recommendation.task import Recommendation

WORDS = 64  # tokens of an image's description at most
CHUNK = 16_384  # items whose CLS tokens are compared at a time


class WishImages:
    """Reads wishes' images with a loaded stage-2 model.

    Args:
        task: with its model loaded.
        processor: cuts images as the item store's were cut.
        store: the catalogue's CLS tokens.
        device: where the model runs.
    """

    def __init__(self, task: Recommendation, processor: Any, store: ItemStore, device: torch.device) -> None:
        self._task, self._processor, self._store, self._device = task, processor, store, device
        self._normalise = Normalise(processor.image_processor).to(device)
        self._imaged = [item for item in store.items if store.views(item)]

    @torch.inference_mode()
    def tokens(self, image: Path) -> Tensor:
        """The image's CLS tokens, (views, C).

        Raises:
            UserError: the image cannot be decoded.
        """
        try:
            views = cut_views(self._processor.image_processor, open_image(image))
        except BrokenImage as broken:
            raise UserError(f"The image {image.name} cannot be used ({broken}); give another.") from None
        llava = self._task.llava
        return cls_tokens(llava, self._normalise(views.to(self._device), llava.dtype))

    @torch.inference_mode()
    def alike(self, tokens: Tensor, k: int) -> list[Candidate]:
        """The `k` items whose whole view (the first) has the nearest CLS token by cosine."""
        wish = normalize(tokens[0].float().cpu(), dim=0)
        cosines = [
            normalize(self._store.first_tokens(self._imaged[start : start + CHUNK]).float(), dim=1) @ wish
            for start in range(0, len(self._imaged), CHUNK)
        ]
        if not cosines:
            return []
        best = torch.cat(cosines).topk(min(k, len(self._imaged)))
        return [
            Candidate(self._imaged[place], cosine, f"looks like the image (cosine {cosine:.2f})")
            for cosine, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def description(self, tokens: Tensor) -> str:
        """What the model says the image shows; stage 1's prompt without a title."""
        task, tokenizer = self._task, self._processor.tokenizer
        encoded = tokenizer([distillation_prompt("", len(tokens))], return_tensors="pt").to(self._device)
        adapters: Any = task.model.base_model
        active = [DISTILLED] if task.distilled else []
        adapters.set_adapter(active) if active else adapters.disable_adapter_layers()
        try:
            visual_tokens = task.visual_tokens(tokens)
            prompt = (encoded["input_ids"], encoded["attention_mask"], visual_tokens, task.placeholder_ids)
            [said] = PromptState(task.llava, *prompt).decode(WORDS, tokenizer.eos_token_id)
        finally:
            if not active:
                adapters.enable_adapter_layers()
            adapters.set_adapter([*active, RECOMMENDATION])
        text: str = tokenizer.decode(said, skip_special_tokens=True)
        return " ".join(text.split())
