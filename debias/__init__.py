"""Learn what users find relevant from clicks that are biased by how items were shown.

Names are loaded when they are first used: `import debias` loads no TensorFlow.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = ("data", "diagnosis", "layers", "losses", "metrics", "models", "propensity")
_HOME = {
    "ClickLog": "debias.data",
    "RankingData": "debias.data",
    "read_letor": "debias.data",
    "batches": "debias.models.batches",
    **dict.fromkeys(["BiasTower", "Standardize", "Tower"], "debias.layers"),
    **dict.fromkeys(
        [
            "XPA",
            "Additive",
            "BilinearModel",
            "ClickModel",
            "Dot",
            "Listwise",
            "Mixture",
            "Naive",
            "PositionFeature",
            "PositionOnly",
            "Product",
            "ranker",
        ],
        "debias.models",
    ),
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"debias.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'debias' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
