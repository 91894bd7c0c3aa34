"""What a class's constructor takes, read from its source: importing it would import PyTorch, which takes seconds.

Only what the source says for certain is told; for the rest (`None`, or an `Anything`) the parser asks the class itself.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Plain:
    """A built-in type, or `Path`, by its name."""

    name: str


@dataclass(frozen=True)
class OneOf:
    """One of several values, by name."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Listed:
    """A list of something."""

    of: "Kind"


@dataclass(frozen=True)
class Mapped:
    """A mapping of names that are free to something."""

    of: "Kind"


@dataclass(frozen=True)
class Options:
    """A mapping of a class's own options, as of a dataclass."""

    signature: "Signature"


@dataclass(frozen=True)
class Anything:
    """What the source does not tell."""


Kind: TypeAlias = "Plain | OneOf | Listed | Mapped | Options | Anything"


@dataclass(frozen=True)
class Option:
    """An argument of a constructor: what it may be (one of `kinds`), its default as written, and what it means."""

    kinds: tuple[Kind, ...]
    default: str | None
    meaning: str


@dataclass(frozen=True)
class Signature:
    """A class's or function's name, what it is, and its options; `is_open` if it takes others too."""

    name: str
    summary: str
    options: dict[str, Option]
    is_open: bool


class NoSuchClass(Exception):
    """The source that a class path names does not exist, or holds no such name."""


@dataclass(frozen=True)
class _Source:
    module: str
    path: Path

    @property
    def package(self) -> str:
        return self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]


def signature_of(class_path: str) -> Signature | None:
    """The signature of a class or a function; None where its source does not tell.

    Raises:
        NoSuchClass: there is surely no such class.
    """
    module, _, name = class_path.rpartition(".")
    source = _source(module)
    if source is None:
        if module.split(".")[0] in sys.builtin_module_names or _top(module) is not None:
            return None  # a class inside a class, or a module that is no source file
        raise NoSuchClass(class_path)
    found = _definition(source, name)
    if found is None and not _can_hold_more(source) and _source(class_path) is None:
        raise NoSuchClass(class_path)
    if found is None or not isinstance(found[1], ast.ClassDef | ast.FunctionDef):
        return None
    return _signature(found[0], found[1])


def _top(module: str) -> Any:
    try:
        return find_spec(module.split(".")[0]) if module else None  # by every finder: an editable install has its own
    except ValueError:  # a module that was put together by hand
        return None


def _source(module: str) -> _Source | None:
    """A module's source file, found beside its packages' files without running any of them."""
    spec = _top(module)
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    *within, last = module.split(".")
    if not within:
        return _Source(module, Path(spec.origin)) if spec.origin and spec.origin.endswith(".py") else None
    for folder in (folder.joinpath(*within[1:]) for folder in folders):
        for path in (folder / f"{last}.py", folder / last / "__init__.py"):
            if path.is_file():
                return _Source(module, path)
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """A module's own statements, those under `if` and `try` included."""
    for statement in body:
        yield statement
        for inner in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try):
                yield from _statements(getattr(statement, inner, []))


def _can_hold_more(source: _Source) -> bool:
    """Whether a module may have names that its own statements do not show."""
    for statement in _statements(_tree(source.path).body):
        if isinstance(statement, ast.FunctionDef) and statement.name == "__getattr__":
            return True
        if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
            return True
        if isinstance(statement, ast.Assign | ast.For | ast.With | ast.Expr):
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("globals", "vars", "setattr"):
                    return True
    return False


def _definition(source: _Source, name: str) -> tuple[_Source, ast.AST] | None:
    """Where a name of a module is defined, its imports followed, and the class or the value that it is given."""
    for statement in reversed(list(_statements(_tree(source.path).body))):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return source, statement
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _imported(source, statement, alias.name)
        if isinstance(statement, ast.AnnAssign) and getattr(statement.target, "id", None) == name and statement.value:
            return source, statement.value
        if isinstance(statement, ast.Assign) and any(getattr(to, "id", None) == name for to in statement.targets):
            return source, statement.value
    return None


def _imported(source: _Source, statement: ast.ImportFrom, name: str) -> tuple[_Source, ast.AST]:
    module = statement.module or ""
    if statement.level:
        package = source.package.split(".")
        module = ".".join([*package[: len(package) - statement.level + 1], *filter(None, [module])])
    other = _source(module)
    found = _definition(other, name) if other else None
    return found or (source, ast.Name(name if module in ("typing", "pathlib", "collections.abc") else f"?{name}"))


def _signature(source: _Source, node: ast.ClassDef | ast.FunctionDef) -> Signature:
    from docstring_parser import parse

    doc = parse(ast.get_docstring(node) or "")
    meanings = {param.arg_name: " ".join((param.description or "").split()) for param in doc.params}
    inits = (s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__")
    init = node if isinstance(node, ast.FunctionDef) else next(inits, None)
    options: dict[str, Option] = {}
    is_open = False
    if init is not None:
        written = parse(ast.get_docstring(init) or "")
        meanings |= {param.arg_name: " ".join((param.description or "").split()) for param in written.params}
        args = init.args
        named = [*args.posonlyargs, *args.args]
        defaults: list[ast.expr | None] = [*[None] * (len(named) - len(args.defaults)), *args.defaults]
        for arg, default in [*zip(named, defaults, strict=True), *zip(args.kwonlyargs, args.kw_defaults, strict=True)]:
            if arg.arg != "self":
                options[arg.arg] = _option(source, arg.annotation, default, meanings.get(arg.arg, ""))
        is_open = bool(args.kwarg or args.vararg)
    elif isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                name = field.target.id
                options[name] = _option(source, field.annotation, field.value, meanings.get(name, ""))
        is_open = bool(node.bases)
    else:
        is_open = True  # a constructor of a base
    return Signature(node.name, doc.short_description or "", options, is_open)


def _option(source: _Source, annotation: ast.expr | None, default: ast.expr | None, meaning: str) -> Option:
    kinds = tuple(_kinds(source, annotation)) if annotation is not None else (Anything(),)
    if isinstance(default, ast.Name) and (found := _definition(source, default.id)) is not None:  # a constant
        default = found[1] if isinstance(found[1], ast.Constant) else default
    return Option(kinds, None if default is None else ast.unparse(default), meaning)


def _kinds(source: _Source, node: ast.AST, depth: int = 0) -> Iterator[Kind]:
    """What an annotation allows."""
    if depth > 8:
        yield Anything()
    elif isinstance(node, ast.Constant):
        yield Plain("None") if node.value is None else Anything()
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _kinds(source, node.left, depth + 1)
        yield from _kinds(source, node.right, depth + 1)
    elif isinstance(node, ast.Subscript):
        yield from _subscripted(source, node, depth)
    elif isinstance(node, ast.Name) and node.id in ("int", "float", "bool", "str", "Path"):
        yield Plain(node.id)
    elif isinstance(node, ast.Name) and (found := _definition(source, node.id)) is not None:
        if isinstance(found[1], ast.ClassDef):
            is_options = any("dataclass" in ast.unparse(decorator) for decorator in found[1].decorator_list)
            yield Options(_signature(found[0], found[1])) if is_options else Anything()
        elif isinstance(found[1], ast.Name) and found[1].id == node.id:
            yield Plain("Path") if node.id == "Path" else Anything()
        else:
            yield from _kinds(found[0], found[1], depth + 1)
    else:
        yield Anything()


def _subscripted(source: _Source, node: ast.Subscript, depth: int) -> Iterator[Kind]:
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    match ast.unparse(node.value).rpartition(".")[2]:
        case "Literal":
            values = [element.value if isinstance(element, ast.Constant) else None for element in inner]
            yield OneOf(tuple(values)) if None not in values else Anything()
        case "Optional":
            yield Plain("None")
            yield from _kinds(source, inner[0], depth + 1)
        case "Union":
            for element in inner:
                yield from _kinds(source, element, depth + 1)
        case "list" | "List" | "Sequence":
            of = list(_kinds(source, inner[0], depth + 1))
            yield Listed(of[0] if len(of) == 1 else Anything())
        case "dict" | "Mapping":
            of = list(_kinds(source, inner[-1], depth + 1))
            yield Mapped(of[0] if len(of) == 1 else Anything())
        case _:
            yield Anything()
