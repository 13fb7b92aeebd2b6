"""Functions that build the models in the table `debias.presets`.

Each function takes the layout of a log and a seed. All relevance towers have the hidden
layers `HIDDEN`, except in linear models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from debias.data.kinds import Features as Kinds
from debias.data.layout import Layout
from debias.engine.seeds import seed_at
from debias.layers import BiasTower, Features, SharedBottom, Tower
from debias.models import (
    XPA,
    Additive,
    BilinearModel,
    ClickModel,
    Dot,
    Ensemble,
    Listwise,
    Mixture,
    MultiTarget,
    Naive,
    PositionFeature,
    Product,
    TrustBiased,
)

HIDDEN = (64, 32)
EMBEDDING = 8
INIT_STD = 0.5  # for embeddings of places in products, and for components of a mixture
TYPES = 3


def relevance(
    seed: int,
    out: int = 1,
    kinds: Kinds | None = None,
    hidden: Sequence[int] = HIDDEN,
) -> keras.layers.Layer:
    """A relevance tower, with the layer `Features` in front if there are categories."""
    return embedded(Tower(hidden, out=out, seed=seed), seed, kinds)


def embedded(
    tower: keras.layers.Layer, seed: int, kinds: Kinds | None
) -> keras.layers.Layer:
    """The tower, preceded by the layer `Features` if any feature is a category."""
    if not any(each.coded for each in kinds or ()):
        return tower
    return keras.Sequential([Features(kinds or (), seed=seed), tower])


def bias(layout: Layout, **options: Any) -> BiasTower:
    """A bias tower that reads all layout columns of the log."""
    return BiasTower(layout.columns, cross=layout.cross, **options)


def prior(layout: Layout, seed: int) -> Any:
    """Prior over the types of users, predicted from context if the log has context."""
    if not layout.context:
        return "learned"
    # Context is not scaled before.
    scale = keras.layers.BatchNormalization(momentum=0.9)
    return keras.Sequential([scale, Tower((16,), TYPES, seed=seed)])


def naive(layout: Layout, seed: int) -> ClickModel:
    return Naive(relevance(seed, kinds=layout.kinds))


def softmax_naive(layout: Layout, seed: int) -> ClickModel:
    return Listwise(Naive(relevance(seed, kinds=layout.kinds)))


def additive(layout: Layout, seed: int) -> ClickModel:
    return Additive(
        relevance(seed, kinds=layout.kinds),
        bias(layout, dropout=0.1, seed=seed),
    )


def product(layout: Layout, seed: int) -> ClickModel:
    return Product(relevance(seed, kinds=layout.kinds), bias(layout, seed=seed))


def trust(layout: Layout, seed: int) -> ClickModel:
    trusted = bias(layout, seed=seed_at(seed, 1))
    return TrustBiased(
        relevance(seed, kinds=layout.kinds), bias(layout, seed=seed), trusted
    )


def position_feature(layout: Layout, seed: int) -> ClickModel:
    place = bias(layout, out=4, dropout=0.15, init_std=INIT_STD, seed=seed)
    return PositionFeature(relevance(seed, kinds=layout.kinds), place)


def dot(layout: Layout, seed: int) -> ClickModel:
    # Embeddings of a place are sums over its columns, and start around 1.
    center = 1 / len(layout.columns)
    place = bias(layout, out=EMBEDDING, center=center, seed=seed)
    return Dot(relevance(seed, EMBEDDING, layout.kinds), place, layout.places)


def bilinear(layout: Layout, seed: int) -> ClickModel:
    place = bias(layout, out=EMBEDDING, init_std=INIT_STD, seed=seed)
    return BilinearModel(
        relevance(seed, EMBEDDING, layout.kinds), place, layout.places, seed
    )


def mixture(layout: Layout, seed: int) -> ClickModel:
    seeds = [TYPES * seed + kind for kind in range(TYPES)]
    places = [bias(layout, init_std=INIT_STD, seed=s) for s in seeds]
    towers = [relevance(s, kinds=layout.kinds) for s in seeds]
    parts = [Product(*pair) for pair in zip(towers, places, strict=True)]
    return Mixture(parts, prior(layout, seed))


def xpa(layout: Layout, seed: int) -> ClickModel:
    place = bias(layout, out=EMBEDDING, init_std=INIT_STD, seed=seed)
    return XPA(relevance(seed, EMBEDDING, layout.kinds), place, seed=seed)


def listwise(layout: Layout, seed: int) -> ClickModel:
    place = bias(layout, init_std=INIT_STD, seed=seed)
    return Listwise(Additive(relevance(seed, kinds=layout.kinds), place))


def product_three(layout: Layout, seed: int) -> ClickModel:
    return Ensemble([product(layout, TYPES * seed + k) for k in range(TYPES)])


def listwise_three(layout: Layout, seed: int) -> ClickModel:
    return Ensemble([listwise(layout, TYPES * seed + k) for k in range(TYPES)])


def listwise_mixture(layout: Layout, seed: int) -> ClickModel:
    parts = [listwise(layout, TYPES * seed + kind) for kind in range(TYPES)]
    return Mixture(parts, prior(layout, seed), serving="relevance")


def product_linear(layout: Layout, seed: int) -> ClickModel:
    linear = relevance(seed, kinds=layout.kinds, hidden=())
    return Product(linear, bias(layout, seed=seed))


def listwise_linear(layout: Layout, seed: int) -> ClickModel:
    linear = relevance(seed, kinds=layout.kinds, hidden=())
    return Listwise(Additive(linear, bias(layout, init_std=INIT_STD, seed=seed)))


def multi_target(
    layout: Layout,
    seed: int,
    worth: Mapping[str, float] | None = None,
    levels: Mapping[str, Sequence[float]] | None = None,
) -> ClickModel:
    """Model of clicks and of all targets of a log.

    A target that is not in `levels` has the single level 0.
    """
    if not layout.targets:
        raise ValueError(
            "the log has no targets: name columns of user actions after a click, such "
            "as -c target=order or Columns(target='order')"
        )
    for name in levels or ():
        if name not in layout.targets:
            raise ValueError(
                f"levels name {name!r}, expected some of {' '.join(layout.targets)}"
            )
    targets = {name: (0.0,) for name in layout.targets} | dict(levels or {})
    shared, *own = HIDDEN
    tower = SharedBottom((shared,), own, 1 + len(targets), seed=seed)
    towers = embedded(tower, seed, layout.kinds), bias(layout, seed=seed)
    return MultiTarget(*towers, targets, worth)


def listwise_xpa(layout: Layout, seed: int) -> ClickModel:
    return Listwise(xpa(layout, seed))
