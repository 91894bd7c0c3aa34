"""The front page is short, every page's links and files are there, and the list of modules is the code's own."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "REPRODUCTION.md")), *(ROOT / "docs").glob("*.md")]


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_list_of_modules_is_what_their_docstrings_say() -> None:
    checked = subprocess.run([sys.executable, ROOT / "scripts/architecture.py", "--check"], check=False)
    assert checked.returncode == 0, "run python scripts/architecture.py"


def test_every_module_says_what_it_is() -> None:
    listed = re.findall(r"^- `(.*?)`:(.*)$", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(listed) > 200
    assert not [module for module, said in listed if not said.strip()]


def test_linked_pages_are_there() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_files_that_pages_name_are_there() -> None:
    for page in PAGES:
        named = re.findall(r"`((?:lavic|crawl|tests|benchmarks|configs|scripts|docs)/[\w./]*\.\w+)`", page.read_text())
        missing = [name for name in named if not (ROOT / name).is_file() and not name.startswith("benchmarks/results/")]
        assert not missing, page.name
