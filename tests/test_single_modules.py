"""One module reads text, one decodes images, one writes files: no other line of the program does so itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITES, PARSES, READS, DECODES = "writes a file", "parses JSON", "reads text", "decodes an image"

# file -> what it may do itself, and why
ALLOWED: dict[str, dict[str, str]] = {
    "lavic/files/__init__.py": {WRITES: "it is the writer"},
    "lavic/catalogue/images.py": {DECODES: "it is the decoder"},
    "lavic/batching/cached_table.py": {WRITES: "an empty file to lock"},
    "lavic/web/uploads.py": {WRITES: "an empty file to lock"},
    "crawl/verify.py": {DECODES: "opens bytes in memory, of the formats that it allows; the pixels come from to_rgb"},
    "lavic/model/text.py": {PARSES: "the package's own prompts", READS: "the package's own prompts"},
    "lavic/demo/toy_tokenizer.py": {PARSES: "what the tokenizers library just made"},
    "lavic/catalogue/product_cells.py": {PARSES: "a cell of a table that was read already"},
    "lavic/catalogue/product_groups.py": {PARSES: "what it wrote into its own database"},
    "lavic/model/checkpoint_files.py": {PARSES: "the header inside a safetensors file"},
    "lavic/training/card.py": {READS: "the package's own template"},
}


def deeds(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and kind of each call that one of the single modules should make instead."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        of = owner.id if isinstance(owner, ast.Name) else ""
        texts = [a.value for a in [*call.args, *(k.value for k in call.keywords)] if isinstance(a, ast.Constant)]
        modes = [text for text in texts if isinstance(text, str) and set(text) <= set("rwxabt+")]
        opens_to_write = name == "open" and any({"w", "x"} & set(mode) for mode in modes)
        is_method = isinstance(call.func, ast.Attribute)
        if (name == "open" and of == "Image") or (name == "convert" and "RGB" in texts):
            yield call.lineno, DECODES
        elif opens_to_write or (name in {"write_text", "write_bytes"} and is_method):
            yield call.lineno, WRITES
        elif name in {"load", "loads"} and of == "json":
            yield call.lineno, PARSES
        elif name == "read_text" and is_method:
            yield call.lineno, READS


def test_nothing_else_reads_writes_or_decodes() -> None:
    found = []
    for path in sorted([*(ROOT / "lavic").rglob("*.py"), *(ROOT / "crawl").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        for line, kind in deeds(ast.parse(path.read_text(encoding="utf-8"))):
            if kind not in ALLOWED.get(name, {}):
                found.append(f"{name}:{line} {kind}")
    assert not found, "use lavic/files/ or lavic/catalogue/images.py:\n" + "\n".join(found)


def test_what_is_allowed_is_still_done() -> None:
    for name, kinds in ALLOWED.items():
        done = {kind for _, kind in deeds(ast.parse((ROOT / name).read_text(encoding="utf-8")))}
        assert kinds.keys() <= done, f"{name} no longer needs its exception"


def test_each_kind_is_seen() -> None:
    lines = ["p.open('w')", "open(p, mode='xb')", "p.write_text('')", "p.write_bytes(b'')", "json.load(f)",
             "json.loads(s)", "p.read_text(encoding='utf-8')", "Image.open(p)", "image.convert('RGB')"]  # fmt: skip
    for line in lines:
        assert list(deeds(ast.parse(line))), line
    for line in ("p.open('rb')", "p.open('a')", "write_text(p, '')", "read_text(p)", "json.dumps(x)"):
        assert not list(deeds(ast.parse(line))), line
