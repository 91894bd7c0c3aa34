"""`python few_packages.py MODULE ...` runs a module where only the packages of a GPU machine can be imported.

Those are torch, transformers, peft and lightning with what they depend on, and the wheels that are brought there.
"""

import importlib.machinery
import re
import runpy
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from typing import Any

from packaging.requirements import Requirement

PRESENT = [
    "torch", "torchvision", "transformers", "peft", "lightning", "numpy", "pillow", "safetensors", "tokenizers",
    "accelerate", "pyarrow", "aiohttp", "rich", "pyyaml",
]  # fmt: skip
BROUGHT = [
    "jsonargparse", "docstring-parser", "typeshed-client", "importlib-resources", "simplejpeg", "ijson", "bm25s",
    "bitsandbytes",
]  # fmt: skip
OWN = {"lavic", "crawl", "benchmarks"}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_dependencies(names: list[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = plain(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def main() -> None:
    there = with_dependencies(PRESENT + BROUGHT)
    names = {name for name, owners in packages_distributions().items() if {plain(owner) for owner in owners} & there}
    names |= OWN | set(sys.stdlib_module_names)

    class Found(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
            first = fullname.split(".")[0]
            known = first in names or first.startswith("_sysconfigdata")  # which the interpreter makes at its build
            return super().find_spec(fullname, path, target) if known else None

    sys.meta_path[:] = [Found if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
