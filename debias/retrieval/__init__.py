"""Retrieval: user and item towers, their training, index and serving.

| step | names |
|---|---|
| towers | `dssm`, `fm_tower`, `senet_tower`, `youtube_dnn`, `MIND`, `DAT` |
| relevance of a click model | `PairRelevance` |
| samplers of negatives | `uniform`, `by_popularity`, `by_ranker`, `from_ranking`, |
| | `Weighted`, `Listed`, `Mixture`, `Queue`, and their protocol `Sampler` |
| training | `Batches`, `fit`, `evaluate` |
| model selection | `Recipe`, `candidates`, `select`, `trained` |
| index | `build` with `hnsw`, `ivf` or `pq` |
| serving | `publish`, `load`, `roll_back`, `retrieve`, `update` |

The names in this table are stable. All other names of the package may change in any
release. A name is imported when it is first used, so `import debias.retrieval` does not
load TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from debias.retrieval.data.negatives import (
        Listed,
        Mixture,
        Queue,
        Sampler,
        Weighted,
        by_popularity,
        from_ranking,
        uniform,
    )
    from debias.retrieval.models import (
        DAT,
        MIND,
        PairRelevance,
        dssm,
        fm_tower,
        senet_tower,
        youtube_dnn,
    )
    from debias.retrieval.serving.index import build, hnsw, ivf, pq
    from debias.retrieval.serving.query import retrieve
    from debias.retrieval.serving.update import update
    from debias.retrieval.serving.versions import load, publish, roll_back
    from debias.retrieval.training.batches import Batches
    from debias.retrieval.training.evaluation import evaluate
    from debias.retrieval.training.fitting import fit
    from debias.retrieval.training.mining import by_ranker
    from debias.retrieval.training.recipe import Recipe, candidates
    from debias.retrieval.training.selection import select, trained

__all__ = [
    "DAT",
    "MIND",
    "Batches",
    "Listed",
    "Mixture",
    "PairRelevance",
    "Queue",
    "Recipe",
    "Sampler",
    "Weighted",
    "build",
    "by_popularity",
    "by_ranker",
    "candidates",
    "dssm",
    "evaluate",
    "fit",
    "fm_tower",
    "from_ranking",
    "hnsw",
    "ivf",
    "load",
    "pq",
    "publish",
    "retrieve",
    "roll_back",
    "select",
    "senet_tower",
    "trained",
    "uniform",
    "update",
    "youtube_dnn",
]
_MODULES = {
    "data.negatives": "Listed Mixture Queue Sampler Weighted by_popularity "
    "from_ranking uniform",
    "models": "DAT MIND PairRelevance dssm fm_tower senet_tower youtube_dnn",
    "serving.index": "build hnsw ivf pq",
    "serving.query": "retrieve",
    "serving.update": "update",
    "serving.versions": "load publish roll_back",
    "training.batches": "Batches",
    "training.evaluation": "evaluate",
    "training.fitting": "fit",
    "training.mining": "by_ranker",
    "training.recipe": "Recipe candidates",
    "training.selection": "select trained",
}
_PACKAGES = ("data", "layers", "losses", "models", "serving", "training")
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"debias.retrieval.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'debias.retrieval' has no attribute {name!r}")
    home = importlib.import_module(f"debias.retrieval.{_HOME[name]}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
