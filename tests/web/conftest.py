"""What the tests of the pages share: an assistant over a tiny catalogue, and a tiny LLaVA to chat with."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from lavic.commands import embed
from lavic.demo.toy_llava import tiny_checkpoint
from lavic.errors import UserError
from lavic.model.loading import BaseModel
from lavic.tasks.recommendation import Recommendation, RecommendationData
from lavic.tasks.recommendation.recommender import Recommender
from tests.stage2_files import Stage2Files, write_stage2_files

if TYPE_CHECKING:  # without Gradio these cannot be imported, and the tests are skipped
    from lavic.web.chat import Chatter
    from lavic.web.shop import Assistant

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="session")
def shop_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage2Files]:
    """24 items, their images and their item store."""
    folder = tmp_path_factory.mktemp("shop")
    tiny_checkpoint(folder / "tiny")
    files = write_stage2_files(folder / "files", folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        embed.main(files.options())
        yield files


@pytest.fixture(scope="session")
def assistant(shop_files: Stage2Files) -> "Assistant":
    """Eight products at most, of ten candidates."""
    from lavic.web.shop import Assistant

    folder, model = shop_files.folder, str(shop_files.model)
    data = RecommendationData(
        folder, metadata=[folder / "items.json"], images_dirs=[folder / "images"], item_store=folder / "item_store",
        model_name=model,
    )  # fmt: skip
    task = Recommendation(BaseModel(model), distilled=shop_files.distilled)
    return Assistant(Recommender(task, data, 10, torch.device("cpu")), top=8)


@pytest.fixture(scope="session")
def chatter(tmp_path_factory: pytest.TempPathFactory) -> "Chatter":
    """A tiny LLaVA, refused as long as it has no chat template."""
    from lavic.web.chat import Chatter, load_chat_model

    folder = tmp_path_factory.mktemp("chat")
    tiny_checkpoint(folder)
    with pytest.raises(UserError, match="has no chat template"):
        load_chat_model(str(folder), None)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return Chatter(*load_chat_model(str(folder), None))
