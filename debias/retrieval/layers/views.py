"""Two views of an item with different hidden features, for self-supervision.

Source: Yao et al., Self-supervised Learning for Large-scale Item Recommendations, CIKM
2021.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from debias.losses.lists import exact
from debias.types import Tensor

TRANSFORMS = ("mask", "dropout", "complementary", "correlated")


def correlated_sets(relation: np.ndarray) -> np.ndarray:
    """(F, F) bool. Row i marks field i and its floor(F / 2) nearest other fields.

    Args:
        relation: (F, F) symmetric similarity, such as mutual information.

    >>> relation = np.array([[9, 2, 1], [2, 9, 0], [1, 0, 9]])
    >>> correlated_sets(relation).astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [1, 0, 1]]
    """
    relation = np.array(relation, float)
    if relation.ndim != 2 or relation.shape[0] != relation.shape[1]:
        raise ValueError(f"relation must be (F, F), got {relation.shape}")
    np.fill_diagonal(relation, np.inf)
    # With an even F, a block of F / 2 + 1 features could leave a view of F = 2 empty.
    near = min(len(relation) // 2, len(relation) - 2) + 1 if len(relation) > 1 else 1
    chosen = np.argsort(-relation, axis=1, kind="stable")[:, :near]
    marked = np.zeros(relation.shape, bool)
    np.put_along_axis(marked, chosen, True, axis=1)
    return marked


def contrastive(one: Tensor, other: Tensor, temperature: float = 0.1) -> Tensor:
    """(n,) contrastive loss between two views of a row: -log softmax over the batch.

    A score is a cosine divided by the temperature. The second views of the other rows
    are the negatives.

    >>> loss = contrastive(ops.eye(2), ops.eye(2), 1.0)  # log(1 + exp(-1))
    >>> [round(float(row), 4) for row in loss]
    [0.3133, 0.3133]
    """
    one, other = (
        x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), -1, keepdims=True), 1e-12))
        for x in (exact(one), exact(other))
    )
    scores = ops.matmul(one, ops.transpose(other)) / temperature
    return ops.logsumexp(scores, axis=-1) - ops.sum(one * other, -1) / temperature


@keras.saving.register_keras_serializable(package="debias")
class FeatureViews(keras.layers.Layer):
    """Draws two views of a batch of item features.

    "mask" hides each field of each row with probability `chance`, independently in each
    view. "dropout" hides each value of a multi-valued field with probability `chance`.
    "complementary" puts a random half of the fields into one view and the remaining
    fields into the other view. All rows of a batch use the same halves. "correlated"
    draws a random field and its floor(F / 2) nearest fields by `relation`. One view has
    only the drawn fields, and the other view has only the remaining fields. Hidden
    features get code 0 (missing) or the number 0. Several transforms are applied one
    after another.

    Args:
        schema: Schema of the items, from `FeatureTable.schema`.
        transforms: Names in `TRANSFORMS`.
        chance: Probability that "mask" hides a field or "dropout" hides a value, in [0,
            1).
        relation: (F, F) similarity for "correlated", such as
            `debias.retrieval.data.interactions.mutual_information`.
        seed: int or None.

    Call arguments:
        features: Dict of arrays (n,) or (n, m).

    Returns:
        Two dicts like `features`, one for each view.

    >>> schema = {name: {"kind": "categorical", "size": 9} for name in ("id", "year")}
    >>> views = FeatureViews(schema, ["complementary"], seed=0)
    >>> one, other = views({"id": ops.array([5]), "year": ops.array([6])})
    >>> sorted(int(view[name][0]) for view in (one, other) for name in view)
    [0, 0, 5, 6]
    """

    def __init__(
        self,
        schema: Mapping[str, Mapping[str, Any]],
        transforms: Sequence[str] = ("correlated", "dropout"),
        chance: float = 0.5,
        relation: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{"autocast": False, **kwargs})
        strange = [name for name in transforms if name not in TRANSFORMS]
        if strange or not transforms:
            raise ValueError(
                f"transforms must be among {list(TRANSFORMS)}, got {list(transforms)}"
            )
        if not 0.0 <= chance < 1.0:
            raise ValueError(f"chance must be in [0, 1), got {chance}")
        halves = {"complementary", "correlated"} & set(transforms)
        if halves and len(schema) < 2:
            raise ValueError(f"{sorted(halves)} need at least 2 fields, got 1")
        if "correlated" in transforms and (
            relation is None or np.shape(relation) != (len(schema),) * 2
        ):
            raise ValueError(
                f"relation must be ({len(schema)}, {len(schema)}) for 'correlated', "
                f"got {None if relation is None else np.shape(relation)}"
            )
        self.schema = {name: dict(kind) for name, kind in schema.items()}
        self.transforms, self.chance, self.seed = list(transforms), chance, seed
        self.relation = None if relation is None else np.asarray(relation).tolist()
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def _keep(self, transform: str, rows: Any) -> tuple[Tensor, Tensor]:
        """(n or 1, F) bool, the fields that each view keeps."""
        fields = len(self.schema)

        def draw(*shape: Any) -> Tensor:
            return keras.random.uniform(shape, seed=self.seed_generator)

        if transform == "mask":
            return draw(rows, fields) >= self.chance, draw(rows, fields) >= self.chance
        if transform == "complementary":
            rank = ops.argsort(ops.argsort(draw(fields)))
            first = ops.expand_dims(rank < fields // 2, 0)
        else:
            sets = ops.convert_to_tensor(correlated_sets(np.array(self.relation)))
            place = ops.cast(ops.floor(draw(1) * fields), "int32")
            first = ops.take(sets, ops.minimum(place, fields - 1), axis=0)
        return first, ~first

    def call(self, features: Mapping[str, Tensor]) -> tuple[dict, dict]:
        views = tuple({name: features[name] for name in self.schema} for _ in "12")
        rows = ops.shape(next(iter(views[0].values())))[0]
        for transform in self.transforms:
            if transform == "dropout":
                for view in views:
                    for name, kind in self.schema.items():
                        if kind["kind"] == "multivalued":
                            chance = keras.random.uniform(
                                ops.shape(view[name]), seed=self.seed_generator
                            )
                            view[name] = ops.where(chance >= self.chance, view[name], 0)
                continue
            for view, keep in zip(views, self._keep(transform, rows), strict=True):
                for place, name in enumerate(self.schema):
                    kept = keep[:, place]
                    if len(view[name].shape) == 2:
                        kept = ops.expand_dims(kept, -1)
                    zero = ops.zeros_like(view[name])
                    view[name] = ops.where(kept, view[name], zero)
        one, other = views
        return one, other

    def get_config(self) -> dict[str, Any]:
        names = ("schema", "transforms", "chance", "relation", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
