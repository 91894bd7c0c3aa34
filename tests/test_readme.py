"""The README names every file of the house, and none that is not there; every page it links to is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def named_files() -> set[str]:
    """The modules in the tree of "Reading the code", with their folders."""
    tree = README.partition("## Reading the code")[2].partition("```")[2].partition("```")[0]
    folder, found = "", set()
    for line in tree.splitlines():
        if match := re.match(r"(lavic|crawl)\S*/(?=\s|$)", line):
            folder = match.group()
        elif match := re.match(r"  (\S+\.py)\s", line):
            found.add(folder + match.group(1))
    return found


def test_every_module_stands_in_the_tree_and_nothing_else() -> None:
    modules = [*(ROOT / "lavic").rglob("*.py"), *(ROOT / "crawl").rglob("*.py")]
    code = [path for path in modules if path.name != "__init__.py" or defines_something(path)]
    assert named_files() == {path.relative_to(ROOT).as_posix() for path in code}


def defines_something(package: Path) -> bool:
    """Whether a package's file is more than its docstring and the names that it hands on."""
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(package.read_text()).body)


def test_linked_pages_are_there() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_files_that_pages_name_are_there() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "REPRODUCTION.md", *(ROOT / "docs").glob("*.md")]:
        named = re.findall(r"`((?:lavic|crawl|tests|benchmarks|configs|scripts|docs)/[\w./]*\.\w+)`", page.read_text())
        missing = [name for name in named if not (ROOT / name).is_file() and not name.startswith("benchmarks/results/")]
        assert not missing, page.name
