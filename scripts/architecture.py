"""Writes the list of every module into docs/architecture.md, from the first line of each one's docstring.

python scripts/architecture.py            writes it
python scripts/architecture.py --check    exits with status 1 where the page is not what it would write
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
HEADING = "## Every file\n"  # what stands above it is written by hand
ROOMS = ("lavic", "crawl", "benchmarks", "scripts")


def first_line(module: Path) -> str:
    """Returns the first line of a module's docstring, "" where it has none."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def is_listed(module: Path) -> bool:
    """Tells whether a module is more than a folder's docstring and the names that it hands on."""
    body = ast.parse(module.read_text(encoding="utf-8")).body
    return module.name != "__init__.py" or any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body)


def every_file() -> str:
    """Returns the list: a heading a folder, with what its docstring says, and a line a module."""
    lines = [HEADING]
    for folder in sorted({path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}):
        modules = [path for path in sorted(folder.glob("*.py")) if is_listed(path)]
        if not modules:
            continue
        package = folder / "__init__.py"
        said = first_line(package) if package.exists() and package not in modules else ""
        lines.append(f"### {folder.relative_to(ROOT)}/\n")
        lines += [f"{said}\n"] if said else []
        lines += [f"- `{module.name}`: {first_line(module)}" for module in modules]
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Writes the page, or checks it."""
    before = PAGE.read_text(encoding="utf-8")
    after = before.partition(HEADING)[0] + every_file()
    if arguments == ["--check"]:
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
