"""Instruction tuning's data module: files of records and a folder of images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

from lavic.batching.cached_table import cache_folder
from lavic.batching.controls import partners_of
from lavic.batching.step_plan import Lengths
from lavic.model.chat_text import ChatText, choose_template, stop_ids
from lavic.model.image_entry import ImageEntry, ImageReader
from lavic.model.loading import load_config
from lavic.model.templates import Template
from lavic.ranges import check_ranges
from lavic.tasks.base import TaskData
from lavic.tasks.instruction.batches import Prompts, RecordBatches, RecordPrompts
from lavic.tasks.instruction.questions import Question, QuestionPrompts, read_questions
from lavic.tasks.instruction.table import RecordSource, RecordTable, load_records
from lavic.training.predictions import answered
from lavic.training.protocols import ShownSample


class InstructionData(TaskData):
    """Conversations about images, or about none, for `lavic.tasks.instruction.Instruction`.

    Args:
        train_data: instruction records to train on, LLaVA's form or messages, `.json` or `.jsonl`.
        val_data: instruction records to validate on.
        images_dir: folder of the images; null where no record has one.
        questions: what `predict` answers, LLaVA-Bench's form or records; null takes the last questions of val_data.
        template: how a conversation is written: `vicuna_v1`, `plain`, `mistral`, `chatml`, `llama_3`, `gemma`,
            `phi_3`, `llava_llama_2`, or `own` for the checkpoint's chat template.
        entry: how images enter; as the model's.
        max_length: tokens of a record at most, image tokens included; a longer one loses its oldest turns.
        batch_size: records of one forward pass on one device.
        max_samples: train on a random choice of that many records (by the seed); null takes all.
        num_workers: processes that decode images, for each device.
        streaming: read and tokenise each record when it is asked for, for files whose tokens fit on no disk; the same
            batches as without.
        strict: stop at the first record that cannot be used, instead of listing it in skipped_samples.jsonl.
        model_name: whose processor is used (set by the command line from the model's own name).
        seed: of the records' order and choice (set by the command line from seed_everything).
        cache_dir: folder of the checked and tokenised records; null means ~/.cache/lavic.
    """

    def __init__(
        self,
        train_data: Path,
        val_data: Path,
        images_dir: Path | None = None,
        template: str = "vicuna_v1",
        entry: ImageEntry = ImageEntry(),  # noqa: B008  (frozen)
        max_length: int = 2048,
        batch_size: int = 1,
        max_samples: int | None = None,
        num_workers: int = 4,
        strict: bool = False,
        model_name: str = "llava-hf/llava-1.5-7b-hf",
        seed: int = 42,
        cache_dir: Path | None = None,
        streaming: bool = False,
        questions: Path | None = None,
    ) -> None:
        super().__init__(batch_size, max_samples, num_workers, strict, model_name, seed)
        check_ranges(max_length=max_length)
        self.images_dir, self.max_length = (Path(images_dir) if images_dir else None), max_length
        self.questions = Path(questions) if questions else None
        self.asked: list[Question] = []
        self.template, self.entry = template, entry
        self.sources = {
            "train": RecordSource(Path(train_data), self.images_dir, max_length, max_samples, seed, streaming),
            "val": RecordSource(Path(val_data), self.images_dir, max_length, None, seed, streaming),
        }
        self.cache_dir = cache_folder(cache_dir)
        self.tables: dict[str, RecordTable] = {}

    def prepare_data(self) -> None:
        """On one process only: checks and tokenises what the cache does not hold yet."""
        self._load()

    def setup(self, stage: str) -> None:
        """On every process: maps the finished tables, and lists what was left out."""
        self._load()
        self.announce()

    def dataset(self, split: str) -> RecordBatches:
        """The batches of a split; those to validate with also show a partner's images, for the shuffled control."""
        partners = self._partners() if split == "val" else None
        return RecordBatches(self.tables[split], self.images_dir, self.reader, partners)

    def lengths(self, split: str) -> tuple[Lengths, Lengths]:
        """Each record's tokens, and those of its answers."""
        return self.tables[split].lengths(), self.tables[split].target_lengths()

    def kinds(self, split: str) -> Lengths:
        """1 for records with images, 0 for text alone."""
        return self.tables[split].kinds()

    def fingerprint(self) -> str:
        """Of the training records' images and tokens."""
        return self.tables["train"].content

    def test_dataloader(self) -> DataLoader[Any]:
        """The validation set: there is no other."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """The prompts of `questions`, without those that are answered; or the validation set's, up to its answers."""
        assert self.trainer is not None
        process = (self.trainer.global_rank, self.trainer.world_size)
        if self.questions is None:
            prompts: Any = Prompts(self.dataset("val"), self.batch_size, *process)
        else:
            done = answered(Path(self.trainer.default_root_dir))
            prompts = QuestionPrompts(self.asked, done, self.images_dir, self.reader, self.batch_size, *process)
        return DataLoader(prompts, batch_size=None, **self.loader_options())

    def shown_samples(self, count: int) -> list[ShownSample]:
        """`count` validation records, chosen by chance but the same each time."""
        batches = self.dataset("val")
        chosen = np.random.default_rng(0).permutation(len(batches))[:count].tolist()
        return [_shown(batches.prompts([index])) for index in chosen]

    def sample_names(self, rows: list[int]) -> list[str]:
        """The IDs of these training records."""
        return [str(self.tables["train"].row(row)["id"]) for row in rows]

    def _partners(self) -> npt.NDArray[np.int64]:
        """For every record one with other images, as many; one without images is its own; (N,)."""
        table = self.tables["val"]
        counts, images = table.image_counts(), table.image_sets()
        partners = np.arange(len(counts))
        for count in np.unique(counts[counts > 0]):
            own = np.flatnonzero(counts == count)
            partners[own] = own[partners_of(images[own], self.seed)]
        return partners

    def _load(self) -> None:
        if self.tables or self.asked:
            return
        self.reader = ImageReader(self.model_name, load_config(self.model_name), self.entry)
        self.processor = self.reader.processor  # saved beside the adapter
        template = choose_template(self.template, self.model_name, self.processor)
        if isinstance(template, Template) and not template.captions_only:
            self.processor.chat_template = template.jinja()  # who serves the adapter writes as it was taught
        chat = ChatText(self.processor.tokenizer, template, stop_ids(self.model_name, self.processor.tokenizer))
        training = self.trainer is None or self.trainer.state.fn == "fit"
        if self.questions is not None and self.trainer is not None and self.trainer.state.fn == "predict":
            read = read_questions(self.questions, self.images_dir, chat, self.reader, self.max_length)
            self.asked, self.left_out = read
            self.sample_counts["answer"] = len(self.asked)
            return
        trainable = getattr(getattr(self.trainer, "lightning_module", None), "trainable", None)
        if trainable is not None and trainable.language == "frozen":
            self.sources["train"] = replace(self.sources["train"], with_images=True)
        for split in ("train", "val") if training else ("val",):
            self.tables[split], rejected = load_records(self.sources[split], chat, self.reader, self.cache_dir)
            self.sample_counts[split] = len(self.tables[split])
            self.left_out += [entry.of_split(split) for entry in rejected]


def _shown(batch: RecordPrompts) -> ShownSample:
    [sample] = batch["samples"]
    fields = {name: value for name, value in sample.items() if name != "answer"}
    return ShownSample(batch, batch["views"][0] if "views" in batch else None, fields, sample["answer"])
