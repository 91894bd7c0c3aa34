"""A LLaVA that knows 20 images by heart says each one's text to its end, and another's where it is shown another."""

import json
from pathlib import Path

import pytest

from lavic.demo import image_talks
from lavic.demo.image_talks import write_talks
from tests.training.command_line import ROOT, run, validation


@pytest.mark.slow
def test_twenty_answers_are_learned_by_heart_and_by_looking(
    composed_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_talks, "SEEN", 20)
    monkeypatch.setattr(image_talks, "IMAGES", {"train": 20, "val": 2, "test": 2})
    write_talks(tmp_path / "data")
    asked = tmp_path / "data" / "captions.json"
    records = json.loads(asked.read_text())
    names = [record["image"] for record in records]
    others = [{**record, "image": name} for record, name in zip(records, names[1:] + names[:1], strict=True)]
    (shuffled := tmp_path / "shuffled.json").write_text(json.dumps(others))
    options = [
        f"--config={ROOT}/configs/instruct.yaml", f"--model.init_args.base.name={composed_toy}",
        "--model.init_args.trainable=freeze_vision", "--model.init_args.lr=0.003", "--model.init_args.part_lr=null",
        "--model.init_args.max_new_tokens=64", f"--data.init_args.images_dir={tmp_path / 'data' / 'Images'}",
        f"--data.init_args.train_data={asked}", f"--data.init_args.val_data={asked}",
        f"--data.init_args.cache_dir={tmp_path / 'cache'}", "--data.init_args.batch_size=10",
        "--data.init_args.num_workers=0", "--trainer.accelerator=cpu", "--trainer.accumulate_grad_batches=1",
        f"--logs_dir={tmp_path / 'logs'}",
    ]  # fmt: skip
    lasting = ["--trainer.max_epochs=35", "--trainer.check_val_every_n_epoch=35"]
    run(["fit", *options, *lasting, f"--trainer.default_root_dir={tmp_path / 'out'}"], tmp_path / "out")
    assert validation(tmp_path)["visual_gain"] > 0.1
    options.append(f"--model.init_args.adapter={tmp_path / 'out' / 'instruction_adapter_best'}")
    right = {}
    for questions in (asked, shuffled):
        output = tmp_path / questions.stem
        answering = [f"--data.init_args.questions={questions}", f"--trainer.default_root_dir={output}"]
        run(["predict", *options, *answering], output)
        answers = [json.loads(line) for line in (output / "predictions.jsonl").open()]
        assert len(answers) == 20
        right[questions] = sum(answer["generated"] == answer["answer"] for answer in answers)  # and nothing behind it
    assert right[asked] >= 18
    assert right[shuffled] < 10
