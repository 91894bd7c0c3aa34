"""LaViC: visually-aware conversational recommendation with LLaVA-v1.6 (Jeon et al., KDD 2025)."""

import importlib
import logging
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__version__ = "0.2.0"

# On some processors bitsandbytes, which PEFT imports, warns of a kernel that is not used (model/quantization.py).
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

# Modules of 0.1, so that users' YAML files and imports work for one more release (CHANGELOG.md).
MOVED = {
    "lavic.metrics": "lavic.evaluation.ranking",
    "lavic.data.distillation": "lavic.tasks.distillation.data",
    "lavic.data.recommendation": "lavic.tasks.recommendation.data",
    "lavic.training.best_recommendation_adapter": "lavic.training.best_adapter",
}
RENAMED = {"BestRecommendationAdapter": "BestAdapter"}


class _Moved(MetaPathFinder, Loader):
    """Imports a module of 0.1 as the one that it has become, with a warning that names it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in MOVED:
            return ModuleSpec(fullname, self)
        # the package that held some of them
        return ModuleSpec(fullname, self, is_package=True) if fullname == "lavic.data" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if spec.name not in MOVED:
            return ModuleType(spec.name)
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}; the old name goes with 0.3", DeprecationWarning, stacklevel=2)
        # a module of its own: the import system writes the old name's spec into what it is given
        alias = ModuleType(spec.name)
        alias.__dict__.update(
            (name, value) for name, value in vars(importlib.import_module(new)).items() if not name.startswith("__")
        )
        alias.__dict__.update((old, vars(alias)[name]) for old, name in RENAMED.items() if name in vars(alias))
        return alias

    def exec_module(self, module: ModuleType) -> None:
        pass


sys.meta_path.append(_Moved())
