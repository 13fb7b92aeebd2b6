"""The layer `Features`, which embeds category codes in front of a tower."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from debias.data import kinds
from debias.layers.embedding import FeatureEmbedding
from debias.types import Tensor

DIM = 8  # size of a category's vector
EXACT = {"float16": 2048, "bfloat16": 256}  # whole numbers up to this are exact


@keras.saving.register_keras_serializable(package="debias")
class Features(keras.layers.Layer):
    """Embeds the category codes of a feature matrix and keeps numeric columns.

    Put this layer in front of any tower, as in `keras.Sequential([Features(data.kinds),
    tower])`. A category is replaced by the learned vector of its code. A feature with
    several categories is replaced by the mean of their vectors. Missing values become
    the zero vector. The out-of-vocabulary code also becomes the zero vector, unless
    training assigned this code to rare values. All columns after the codes stay
    unchanged. These columns hold numeric features or are appended by a model.

    Args:
        features: The features: `RankingData.kinds`, records of
            `debias.data.kinds.as_records`, or dicts with the keys name, size and width.
            Numeric features are ignored.
        dim: Dimension of the vector of each category.
        scale: Standard deviation of the initial vectors.
        seed: int or None. Random seed of the initial vectors.

    Shapes: the input `(..., F)` holds the codes first and the numbers last. The output
    is `(..., C dim + N)` for C categorical features and N numeric columns.

    >>> import numpy as np
    >>> brand = kinds.Feature("brand", "category", ("acme", "birch"))
    >>> rows = np.array([[2.0, 0.5], [0.0, 1.5]], "float32")
    >>> found = np.asarray(Features((brand,), dim=3)(rows))
    >>> found.shape, found[1].tolist()
    ((2, 4), [0.0, 0.0, 0.0, 1.5])
    """

    def __init__(
        self,
        features: Sequence[kinds.Feature | Mapping[str, Any]],
        dim: int = DIM,
        scale: float = 0.05,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.features = sized(features)
        if not self.features:
            raise ValueError("features must hold a category, got numbers alone")
        self.dim, self.scale, self.seed = dim, scale, seed
        schema = {
            f"category_{place}": {
                "kind": "multivalued" if each["width"] > 1 else "categorical",
                "size": each["size"],
            }
            for place, each in enumerate(self.features)
        }
        self.fields = FeatureEmbedding(
            schema, dim, scale=scale, seed=seed, name="fields"
        )
        self.built = True

    def call(self, features: Tensor) -> Tensor:
        dtype = keras.backend.standardize_dtype(features.dtype)
        exact = EXACT.get(dtype)
        if exact is not None and max(e["size"] for e in self.features) > exact:
            raise ValueError(
                f"{dtype} holds codes exactly only below {exact}, but a vocabulary has "
                "more: give dtype='float32' to the model and to the layers before "
                "this one"
            )
        codes: dict[str, Tensor] = {}
        start = 0
        for place, each in enumerate(self.features):
            block = features[..., start : start + each["width"]]
            several = each["width"] > 1
            block = block if several else block[..., 0]
            codes[f"category_{place}"] = ops.cast(block, "int32")
            start += each["width"]
        fields = self.fields(codes)
        size = self.dim * len(self.features)
        flat = ops.reshape(fields, (*ops.shape(features)[:-1], size))
        rest = ops.cast(features[..., start:], flat.dtype)
        return ops.concatenate([flat, rest], axis=-1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        taken = sum(each["width"] for each in self.features)
        *lead, last = input_shape
        size = self.dim * len(self.features)
        return (*lead, None if last is None else last - taken + size)

    def get_config(self) -> dict[str, Any]:
        names = ("features", "dim", "scale", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def sized(
    features: Sequence[kinds.Feature | Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Name, number of codes and number of columns of each coded feature.

    >>> sized([kinds.Feature("brand", "category", ("acme",)), kinds.Feature("price")])
    [{'name': 'brand', 'size': 3, 'width': 1}]
    """
    found = []
    for each in features:
        if isinstance(each, kinds.Feature):
            if each.coded:
                found.append(
                    {"name": each.name, "size": each.size, "width": each.width}
                )
        elif "size" in each:
            found.append({name: each[name] for name in ("name", "size", "width")})
        else:
            found += sized(kinds.of_records([each]) or ())
    return found
