"""`--help` of every command: on standard output alone, and without torch where the command does without it."""

import subprocess
import sys

import pytest

import lavic.__main__

WITHOUT_TORCH = ("import", "monitor", "report", "retrieve", "compare", "train")
HELP = """
import sys
import lavic.__main__
for command in sys.argv[1:]:
    try:
        lavic.__main__.main([command, "--help"])
    except SystemExit:
        pass
    print(command, sorted({"torch", "transformers", "lightning", "bitsandbytes"} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize("command", sorted(lavic.__main__.COMMANDS))
def test_help_is_a_result(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = lavic.__main__.main([command, "--help"])
    except SystemExit as ended:
        status = int(ended.code or 0)
    out, err = capsys.readouterr()
    assert status == 0
    assert out.strip()
    assert err == ""


def test_help_waits_for_no_library_that_it_does_not_need() -> None:
    done = subprocess.run([sys.executable, "-c", HELP, *WITHOUT_TORCH], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"{command} []" for command in WITHOUT_TORCH]
