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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
