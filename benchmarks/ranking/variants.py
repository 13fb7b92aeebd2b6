"""Ablations: each variant changes one part of a model.

| variant | change |
|---|---|
| `mixture_2`, `mixture_5` | two or five components instead of three |
| `mixture_uniform` | equal component shares instead of learned ones |
| `mixture_tempered` | halved log-likelihoods in the posterior of the components |
| `mixture_shared`, `mixture_trunk` | components share all layers, or all but the last |
| `mixture_additive` | additive models instead of products as components |
| `mixture_of_kinds` | components: a product, a position-only and an item-only model |
| `mixture_clicked` | sessions without a click are dropped |
| `mixture_context` | component shares depend on the session's context |
| `product_wide` | a product with the capacity of the mixture |
| `softmax_naive_three` | the average of three towers instead of one tower |
| `additive_plain` | no position dropout |
| `xpa_own`, `xpa_places`, `xpa_relevance` | no attention; to places; to relevance |
| `xpa_self` | an item also attends to itself |
| `xpa_positions` | reads only the position, not row and column |
| `xpa_items` | attention also reads the relevance of both items |
| `product_position` | reads only the position, no other layout column |
| `product_crossed`, `additive_crossed` | a bias for each pair (position, device) |
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from benchmarks.ranking.settings import part_seed
from debias.data.layout import Layout
from debias.engine.tensors import rowwise
from debias.layers import BiasTower, Tower
from debias.losses.lists import exact
from debias.models import (
    XPA,
    Additive,
    ClickModel,
    Ensemble,
    Mixture,
    Naive,
    PositionOnly,
    Product,
)
from debias.models.builders import (
    EMBEDDING,
    HIDDEN,
    INIT_STD,
    TYPES,
    relevance,
    softmax_naive,
)
from debias.models.click_model import on_rows, to_cells
from debias.types import Batch, Tensor

Kind = Callable[[keras.layers.Layer, keras.layers.Layer], ClickModel]


def separate(seeds: Sequence[int]) -> list[keras.layers.Layer]:
    return [relevance(seed) for seed in seeds]


def shared(seeds: Sequence[int]) -> list[keras.layers.Layer]:
    return [relevance(seeds[0])] * len(seeds)


class OnTrunk(keras.layers.Layer):
    """A linear head on a tower that other heads may share."""

    def __init__(self, below: keras.layers.Layer, seed: int):
        super().__init__()
        self.below = below
        self.head = Tower((), seed=seed)

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        return self.head(ops.relu(self.below(features, training=training)))


def trunk(seeds: Sequence[int]) -> list[keras.layers.Layer]:
    """Towers that share all layers except the last."""
    below = Tower(HIDDEN[:-1], out=HIDDEN[-1], seed=seeds[0])
    return [OnTrunk(below, seed) for seed in seeds]


def places_only(relevance: keras.layers.Layer, bias: keras.layers.Layer) -> ClickModel:
    return PositionOnly(bias)


def items_only(relevance: keras.layers.Layer, bias: keras.layers.Layer) -> ClickModel:
    return Naive(relevance)


def mixture(
    layout: Layout,
    seed: int,
    parts: Sequence[Kind] = (Product,) * TYPES,
    towers: Callable[[Sequence[int]], list[keras.layers.Layer]] = separate,
    **options: Any,
) -> Mixture:
    """A mixture of the given components, by default the mixture of the library."""
    seeds = [part_seed(seed, number, len(parts)) for number in range(len(parts))]
    biases = [BiasTower(layout.columns, init_std=INIT_STD, seed=s) for s in seeds]
    made = zip(parts, towers(seeds), biases, strict=True)
    return Mixture([part(tower, bias) for part, tower, bias in made], **options)


def mixture_context(layout: Layout, seed: int) -> Mixture:
    """A mixture whose component shares depend on the session's context."""
    return mixture(layout, seed, prior=keras.layers.Dense(TYPES))


def product_wide(layout: Layout, seed: int) -> ClickModel:
    wide = Tower([TYPES * size for size in HIDDEN], seed=seed)
    return Product(wide, BiasTower(layout.columns, seed=seed))


def softmax_naive_three(layout: Layout, seed: int) -> ClickModel:
    return Ensemble([softmax_naive(layout, TYPES * seed + k) for k in range(TYPES)])


def additive_plain(layout: Layout, seed: int) -> ClickModel:
    return Additive(relevance(seed), BiasTower(layout.columns, seed=seed))


def xpa(
    layout: Layout, seed: int, columns: Sequence[str] | None = None, **options: Any
) -> XPA:
    """XPA that reads the given layout columns, or all columns by default."""
    read = {n: layout.columns[n] for n in columns or layout.columns}
    place = BiasTower(read, out=EMBEDDING, init_std=INIT_STD, seed=seed)
    return XPA(relevance(seed, EMBEDDING), place, seed=seed, **options)


class ReadingXPA(XPA):
    """XPA with attention that also reads the relevance of both items."""

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        h = to_cells(on_rows(self.relevance, batch["features"], training), batch)
        z = self.bias(batch, training=training)
        logit = exact(rowwise(self.own_relevance, h) + rowwise(self.own_place, z))
        both = ops.concatenate([z, h], axis=-1)
        for name, attention in self.heard.items():
            heard, _ = attention(h if name == "relevance" else z, both, batch["mask"])
            logit += exact(heard)
        return ops.squeeze(logit, -1)

    def attention(self, batch: Batch) -> Tensor:
        h = to_cells(on_rows(self.relevance, batch["features"], False), batch)
        both = ops.concatenate([self.bias(batch), h], axis=-1)
        return self.heard["relevance"].weights_between(both, batch["mask"])


def xpa_items(layout: Layout, seed: int) -> XPA:
    place = BiasTower(layout.columns, out=EMBEDDING, init_std=INIT_STD, seed=seed)
    return ReadingXPA(relevance(seed, EMBEDDING), place, EMBEDDING // 2, seed=seed)


def product_position(layout: Layout, seed: int) -> ClickModel:
    place = BiasTower({"position": layout.columns["position"]}, seed=seed)
    return Product(relevance(seed), place)


def crossed(kind: Kind, layout: Layout, seed: int) -> ClickModel:
    pair = ("position", "device")
    return kind(relevance(seed), BiasTower(layout.columns, seed=seed, cross=(pair,)))


VARIANTS: Mapping[str, Callable[[Layout, int], ClickModel]] = {
    "mixture_context": mixture_context,
    "mixture_2": partial(mixture, parts=(Product,) * 2),
    "mixture_5": partial(mixture, parts=(Product,) * 5),
    "mixture_uniform": partial(mixture, prior="uniform"),
    "mixture_tempered": partial(mixture, temperature=2.0),
    "mixture_shared": partial(mixture, towers=shared),
    "mixture_trunk": partial(mixture, towers=trunk),
    "mixture_additive": partial(mixture, parts=(Additive,) * TYPES),
    "mixture_of_kinds": partial(mixture, parts=(Product, places_only, items_only)),
    "product_wide": product_wide,
    "softmax_naive_three": softmax_naive_three,
    "additive_plain": additive_plain,
    "xpa_own": partial(xpa, hears=()),
    "xpa_places": partial(xpa, hears=("places",)),
    "xpa_relevance": partial(xpa, hears=("relevance",)),
    "xpa_self": partial(xpa, attend_self=True),
    "xpa_positions": partial(xpa, columns=("position",)),
    "xpa_items": xpa_items,
    "product_position": product_position,
    "product_crossed": partial(crossed, Product),
    "additive_crossed": partial(crossed, Additive),
}
"""Variants by name.

`mixture_clicked` is the mixture in `benchmarks.ranking.learners`.
"""
