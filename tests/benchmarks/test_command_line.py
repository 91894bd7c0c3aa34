"""`python -m benchmarks` refuses in one sentence what it cannot measure."""

import sys

import pytest

from benchmarks.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("training --samples 4 --batch_sizes 1 8", "--samples 4 is less than a batch of 8; give that many"),
        ("peers --ways tower", "invalid choice: 'tower'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments.split()])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert sentence in capsys.readouterr().err
