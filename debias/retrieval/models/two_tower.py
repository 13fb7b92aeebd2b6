"""The two-tower retrieval model, and published models as special cases."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import ops

from debias.engine.optimizers import RowLossScale, RowWiseAdam
from debias.engine.seeds import split_seed
from debias.engine.steps import Execution, SteppingModel, loop_over_stack
from debias.layers.embedding import compressed
from debias.retrieval.layers.logq import (
    StreamingFrequency,
    accidental_hits,
    correct,
    mask_columns,
)
from debias.retrieval.layers.views import FeatureViews, contrastive
from debias.retrieval.losses import RetrievalLoss
from debias.retrieval.models.encoder import Encoder, encode
from debias.types import Tensor

Schema = Mapping[str, Mapping[str, Any]]
TEMPERATURE = 0.3


class RetrievalModel(SteppingModel):
    """Base class of retrieval models, which scores, corrects and masks candidates.

    The score of row b and candidate c is u_b . v_c / temperature. In training only, log
    q is subtracted from the scores of shared columns. Columns that repeat the row's
    positive, or that the batch excludes, are masked.

    A subclass has the encoders `user` and `item`, and its method `match` computes
    scores from their vectors.

    Call arguments:
        batch: Dict from `debias.retrieval.training.batches.Batches`. The correction,
            masks and auxiliary losses apply only if `training` is true.

    Returns:
        (B, C + S) scores. For a packed batch, the result is (B, 2): the score of the
        positive, and the log-sum-exp of all negatives. The softmax loss needs only
        these two scores. Unlike other scores, they are corrected and masked even if
        `training` is false.
    """

    user: Any
    item: Any

    def __init__(
        self,
        temperature: float = TEMPERATURE,
        frequency: StreamingFrequency | None = None,
        views: FeatureViews | None = None,
        self_weight: float = 0.1,
        **kwargs: Any,
    ):
        super().__init__(**{"autocast": False, **kwargs})
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if self_weight < 0:
            raise ValueError(f"self_weight must not be negative, got {self_weight}")
        self.temperature, self.self_weight = temperature, self_weight
        self.frequency, self.views = frequency, views

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        """Compiles the model; the defaults are row-wise Adam, softmax loss and no XLA.

        XLA would make the gradients of embedding tables dense, but Keras may enable it
        automatically. Under the policy mixed_float16, the loss is scaled by
        `RowLossScale`.
        """
        kwargs.setdefault("jit_compile", keras.backend.backend() != "tensorflow")
        optimizer = RowWiseAdam() if optimizer is None else optimizer
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if self.dtype_policy.name == "mixed_float16" and not scaled:
            optimizer = RowLossScale(keras.optimizers.get(optimizer))
        super().compile(optimizer, RetrievalLoss() if loss is None else loss, **kwargs)

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Trains like `keras.Model.fit`, but does not shuffle `Batches` again.

        TensorFlow gets the batches in chunks. If `steps_per_execution` in `compile` is
        above 1, a chunk has the batches of one execution, all in memory at once.
        Without `steps_per_execution`, a chunk has 16 batches.

        Raises:
            ValueError: The batches are packed, but the loss is not the softmax.
        """
        if getattr(x, "packed", False) and getattr(self.loss, "kind", "") != "softmax":
            raise ValueError(
                "packed batches support only the softmax: give compile "
                "RetrievalLoss('softmax'), or make batches with packed=False"
            )
        if not hasattr(x, "dataset"):
            return super().fit(x, y, **kwargs)
        kwargs["shuffle"] = False  # the batches draw their own order
        if keras.backend.backend() != "tensorflow" or kwargs.get("steps_per_epoch"):
            return super().fit(x, y, **kwargs)
        x.on_epoch_end()  # as Keras does before the first epoch of a `PyDataset`
        next_epoch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: x.on_epoch_end()
        )
        given = keras.tree.flatten(kwargs.pop("callbacks", None) or [])
        kwargs["callbacks"] = [*given, next_epoch]
        if not self.takes_several_steps():
            return super().fit(x.dataset(), y, **kwargs)
        epochs = kwargs.get("epochs", 1) - kwargs.get("initial_epoch", 0)
        executions = _stacks(x.pieces(self.steps_per_execution, epochs))
        return self.fit_executions(loop_over_stack, executions, len(x), **kwargs)

    def build(self, input_shape: Any = None) -> None:
        for part in (self.user, self.item):
            if not part.built:
                part.build(None)

    def encode_user(self, batch: Mapping[str, Any], training: bool = False) -> Tensor:
        return self.user(batch["user"], training=training)

    def encode_item(self, features: Any, training: bool = False) -> Tensor:
        return self.item(features, training=training)

    def match(self, users: Tensor, items: Tensor, batch: Any, label: Any) -> Tensor:
        """Products (B, C) for shared items (C, d), or (B, S) for items (B, S, d)."""
        if len(items.shape) == 2:
            return ops.matmul(users, ops.transpose(items))
        return ops.sum(ops.expand_dims(users, 1) * items, axis=-1)

    def label_of(self, batch: Mapping[str, Any], items: dict[str, Tensor]) -> Tensor:
        """(B, d) item vector of each row's positive."""
        place = ops.cast(batch["positive"], "int32")
        if "item" in items:
            return ops.take(items["item"], place, axis=0)
        place = ops.reshape(place, (-1, 1, 1))
        return ops.take_along_axis(items["own"], place, axis=1)[:, 0]

    def auxiliary(
        self, batch: Mapping[str, Any], users: Tensor, items: dict[str, Tensor]
    ) -> None:
        """Adds auxiliary losses to the compiled loss."""
        if self.views is not None and "self" in batch and self.self_weight:
            one, other = self.views(batch["self"])
            vectors = (self.encode_item(view, training=True) for view in (one, other))
            self.add_loss(self.self_weight * ops.mean(contrastive(*vectors)))

    def pair_losses(
        self,
        user: Tensor,
        item: Mapping[str, Tensor],
        users: Tensor,
        items: Tensor,
        weight: Tensor | None = None,
        scale: float = 1.0,
    ) -> None:
        """Adds the auxiliary losses of a model on positive pairs.

        Args:
            user: (B,) id codes of the users.
            item: Categorical features (B,) of the items.
            users, items: (B, d) vectors of users and items.
            weight: (B,) weight of each pair, between 0 and 1. If None, all weights are
                1.
            scale: Factor that multiplies all auxiliary losses.
        """

    def call(self, batch: Mapping[str, Any], training: bool = False) -> Tensor:
        if "item" not in batch and "own" not in batch:
            raise ValueError("batch must hold candidates, 'item' or 'own'")
        if "log_count" in batch:
            return self._packed(batch, training)
        users = self.encode_user(batch, training)
        items = {
            name: self.encode_item(batch[name], training)
            for name in ("item", "own")
            if name in batch
        }
        label = self.label_of(batch, items) if training else None
        scores = []
        for name, vectors in items.items():
            # Divide the few items by the temperature, not the many scores.
            part = self.match(users, vectors / self.temperature, batch, label)
            if training and name == "item":
                part = self._corrected(part, batch)
            if training and "id" in batch[name] and "excluded" not in batch:
                hits = accidental_hits(batch[name]["id"], batch["positive"])
                part = mask_columns(part, hits)
            scores.append(part)
        total = scores[0] if len(scores) == 1 else ops.concatenate(scores, axis=-1)
        if training and "excluded" in batch:
            total = mask_columns(total, ops.cast(batch["excluded"], "bool"))
        if training:
            self.auxiliary(batch, users, items)
        return total

    def _corrected(self, scores: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Subtracts log q, if known, from the scores of shared candidates."""
        if self.frequency is not None:
            log_q = self.frequency(batch["item"]["id"], training=True)
            return correct(scores, ops.stop_gradient(log_q))
        return correct(scores, batch["log_q"]) if "log_q" in batch else scores

    def _packed(self, batch: Mapping[str, Any], training: bool) -> Tensor:
        """(B, 2): corrected score of the positive, and log-sum-exp of the negatives.

        A negative with score s that occurs c times counts c times, so its corrected
        score is s - log q + log c.
        """
        if self.frequency is not None:
            raise ValueError(
                "packed batches have their own log_q: make them with packed=False to "
                "learn frequencies from the stream"
            )
        users = self.encode_user(batch, training)
        items = {"item": self.encode_item(batch["item"], training)}
        label = self.label_of(batch, items)
        # Scores of all distinct candidates. Adding log c counts all occurrences.
        scaled = items["item"] / self.temperature
        log_q = batch.get("log_q", ops.zeros_like(batch["log_count"]))
        scores = self.match(users, scaled, batch, label)
        scores = correct(scores, log_q - batch["log_count"])
        if "excluded" in batch:
            scores = mask_columns(scores, ops.cast(batch["excluded"], "bool"))
        negatives = ops.logsumexp(scores, axis=-1)
        if "event" in batch:  # from one row per distinct user to one row per event
            users, negatives, features = keras.tree.map_structure(
                lambda of: ops.take(of, batch["event"], axis=0),
                (users, negatives, dict(batch["user"])),
            )
            batch = {**batch, "user": features}
        # The positive of each event counts once, so without log c.
        one = ops.expand_dims(label / self.temperature, 1)
        own = self.match(users, one, batch, label)[:, 0]
        own = correct(own, ops.take(log_q, batch["positive"], axis=0))
        if "excluded" not in batch:
            # The sum contains all c occurrences of the positive. Subtract them: log(e^n
            # - e^p) = n + log(1 - e^(p - n)). Rounding could make p larger than n.
            part = own + ops.take(batch["log_count"], batch["positive"], axis=0)
            share = ops.minimum(part - negatives, -1e-6)
            negatives = negatives + ops.log(-ops.expm1(share))
        if training:
            self.auxiliary(batch, users, items)
        return ops.stack([own, negatives], axis=-1)

    def user_vectors(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """User vectors (n, dim), or (n, K, dim) for several interests, in NumPy."""
        return encode(self.user, features)

    def item_vectors(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Item vectors (n, dim), as a NumPy array."""
        return encode(self.item, features)

    def get_config(self) -> dict[str, Any]:
        parts = {
            name: None if part is None else keras.saving.serialize_keras_object(part)
            for name, part in (("frequency", self.frequency), ("views", self.views))
        }
        own = {"temperature": self.temperature, "self_weight": self.self_weight}
        return {**super().get_config(), **parts, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        config = dict(config)
        for name in ("user", "item", "frequency", "views"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return cls(**config)


def _stacks(pieces: Iterator[Any]) -> Generator[Execution]:
    """Yields one piece per execution, while a thread prepares the next piece."""
    import tensorflow as tf

    def made() -> Execution:
        return *tf.nest.map_structure(tf.constant, next(pieces)), 0

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(made)
        while True:
            piece = waiting.result()
            waiting = pool.submit(made)
            yield piece


@keras.saving.register_keras_serializable(package="debias")
class TwoTower(RetrievalModel):
    """A user encoder, an item encoder, and their inner product.

    Args:
        user, item: Encoders, which are layers that map a dict of features to vectors.
            Both encoders return vectors of the same size. To share the table of item
            ids, make the item encoder first and pass its `id_table` to the user encoder
            as `history_table`.
        temperature: Divisor of the scores. Good values are about .1 for cosines, and
            about .3 if the length of user vectors is free.
        frequency: Layer that estimates log q from the stream of batches. If None, the
            model uses the `log_q` of the batch.
        views: Layer that draws two views of the items in the batch's entry "self", for
            self-supervision.
        self_weight: Weight of the self-supervision loss.
        worth: Worth of each target (kind of event), in the order of the log's targets.
            With `worth`, the vectors consist of parts of equal size, one part per
            target. An event of target t trains only part t of the vectors, and the
            layers that all targets share. `item_vectors` multiplies each part by the
            worth of its target. So an inner product is the sum of w_t <u_t, v_t> over
            the targets t, where w_t is the worth of target t. If `worth` is empty, all
            events are of one kind.
        **kwargs: Arguments of `keras.Model`.

    >>> schema = {"id": {"kind": "categorical", "size": 9}}
    >>> model = TwoTower(Encoder(schema, 4), Encoder(schema, 4))
    >>> user, item = {"id": ops.array([2, 3])}, {"id": ops.array([4, 5, 6])}
    >>> tuple(model({"user": user, "item": item}).shape)
    (2, 3)
    """

    def __init__(
        self,
        user: keras.layers.Layer,
        item: keras.layers.Layer,
        temperature: float = TEMPERATURE,
        worth: Sequence[float] = (),
        **kwargs: Any,
    ):
        super().__init__(temperature, **kwargs)
        self.user, self.item, self.worth = user, item, tuple(worth)
        if not np.isfinite(self.worth).all():
            raise ValueError(f"worth must be finite numbers, got {list(worth)}")

    def encode_user(self, batch: Mapping[str, Any], training: bool = False) -> Tensor:
        users = super().encode_user(batch, training)
        if not (training and self.worth and "target" in batch):
            return users
        return part_of_target(users, batch["target"], len(self.worth))

    def item_vectors(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Item vectors (n, dim); each part is multiplied by the worth of its target."""
        vectors = super().item_vectors(features)
        if not self.worth:
            return vectors
        size = vectors.shape[1] // len(self.worth)
        return vectors * np.repeat(np.asarray(self.worth, vectors.dtype), size)

    def get_config(self) -> dict[str, Any]:
        own = {
            "worth": list(self.worth),
            "user": keras.saving.serialize_keras_object(self.user),
            "item": keras.saving.serialize_keras_object(self.item),
            "shares_table": bool(getattr(self.user, "shares_table", False)),
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        config = dict(config)
        if config.pop("shares_table", False):
            # The user encoder's configuration describes this table. Here it is the
            # item's.
            config["item"] = keras.saving.deserialize_keras_object(
                config["item"], custom_objects=custom_objects
            )
            user = config["user"]
            inner = {**user["config"], "history_table": config["item"].id_table}
            config["user"] = {**user, "config": inner}
        return super().from_config(config, custom_objects)


def part_of_target(vectors: Tensor, target: Tensor, targets: int) -> Tensor:
    """(B, d) vectors with zeros outside the part that belongs to the row's target.

    >>> ops.convert_to_numpy(part_of_target(np.ones((2, 4)), np.array([0, 1]), 2))
    array([[1., 1., 0., 0.],
           [0., 0., 1., 1.]])
    """
    size = vectors.shape[-1] // targets
    mine = ops.one_hot(ops.cast(target, "int32"), targets, dtype=vectors.dtype)
    return vectors * ops.repeat(mine, size, axis=-1)


MODEL_OPTIONS = ("frequency", "views", "self_weight", "worth")


def _two_tower(
    users: Schema,
    items: Schema,
    combine: str,
    history: str | None,
    length: int,
    temperature: float,
    seed: int | None,
    options: Mapping[str, Any],
) -> TwoTower:
    users, items, options = _with_compress(users, items, options)
    past = None if history is None else _past(history, length, items)
    seeds = split_seed(seed, 2)
    of_user, of_item = _sides(options)
    return TwoTower(
        Encoder(users, combine=combine, history=past, seed=seeds[0], **of_user),
        Encoder(items, combine=combine, seed=seeds[1], **of_item),
        temperature,
        **{k: v for k, v in options.items() if k in MODEL_OPTIONS},
    )


def _sides(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of `Encoder` for users and for items."""
    not_of_items = (*MODEL_OPTIONS, "normalize_users")
    item = {k: v for k, v in options.items() if k not in not_of_items}
    return {**item, "normalize": options.get("normalize_users", False)}, item


def _with_compress(
    users: Schema, items: Schema, options: Mapping[str, Any]
) -> tuple[Schema, Schema, dict[str, Any]]:
    """Applies `compress` and `rows` to the schemas; also returns the other options."""
    rest = dict(options)
    how, rows = rest.pop("compress", None), rest.pop("rows", None)
    return compressed(users, how, rows), compressed(items, how, rows), rest


def _past(kind: str, length: int, items: Schema) -> dict[str, Any]:
    """Arguments of a history with an embedding table as large as the item id table."""
    table = {k: v for k, v in items["id"].items() if k != "kind"}
    return {"kind": kind, "length": length, **table}


def dssm(
    users: Schema,
    items: Schema,
    dim: int = 64,
    hidden: Sequence[int] = (128,),
    history: str | None = "recency",
    length: int = 50,
    temperature: float = TEMPERATURE,
    seed: int | None = None,
    **options: Any,
) -> TwoTower:
    """DSSM: each tower is an MLP over concatenated embeddings.

    Source: Huang et al., Learning Deep Structured Semantic Models for Web Search using
    Clickthrough Data, CIKM 2013.

    Args:
        users, items: Schemas.
        history: How the user tower reads a history, a name in
            `debias.retrieval.layers.history.HISTORIES`. If None, the tower reads no
            history.
        length: Length of the longest history.
        **options: Other arguments of `Encoder`, for both towers. If `normalize_users`
            is true, user vectors have length 1, like item vectors. By default, the
            length of user vectors is free and expresses how specific a user's taste is.
            `compress` and `rows` of `debias.layers.embedding.RowEmbedding` apply to all
            id tables. `frequency`, `views`, `self_weight` and `worth` are arguments of
            `TwoTower`. With `worth`, `dim` is the total size of all parts.

    >>> schema = {"id": {"kind": "categorical", "size": 9}}
    >>> dssm(schema, schema, history=None).user.combine
    'mlp'
    """
    options = {"dim": dim, "hidden": hidden, **options}
    return _two_tower(users, items, "mlp", history, length, temperature, seed, options)


def fm_tower(
    users: Schema,
    items: Schema,
    dim: int = 64,
    history: str | None = "recency",
    length: int = 50,
    temperature: float = TEMPERATURE,
    seed: int | None = None,
    **options: Any,
) -> TwoTower:
    """FM: each tower is the sum of its fields; `dssm` explains the arguments.

    See `debias.retrieval.layers.fm.fm_sum`.
    """
    options = {"dim": dim, **options}
    return _two_tower(users, items, "fm", history, length, temperature, seed, options)


def senet_tower(
    users: Schema,
    items: Schema,
    dim: int = 64,
    hidden: Sequence[int] = (128,),
    history: str | None = "recency",
    length: int = 50,
    temperature: float = TEMPERATURE,
    seed: int | None = None,
    **options: Any,
) -> TwoTower:
    """`dssm` with `SENet` between the embeddings and the MLP of each tower."""
    options = {"dim": dim, "hidden": hidden, **options}
    return _two_tower(
        users, items, "senet", history, length, temperature, seed, options
    )


def youtube_dnn(
    users: Schema,
    items: Schema,
    dim: int = 64,
    hidden: Sequence[int] = (128,),
    length: int = 50,
    temperature: float = TEMPERATURE,
    seed: int | None = None,
    **options: Any,
) -> TwoTower:
    """YoutubeDNN: an MLP over mean history and user features; items have only ids.

    `dssm` explains the arguments.

    Source: Covington et al., Deep Neural Networks for YouTube Recommendations, RecSys
    2016.
    """
    seeds = split_seed(seed, 2)
    users, items, options = _with_compress(users, items, options)
    past = _past("mean", length, items)
    of_model = {k: v for k, v in options.items() if k in MODEL_OPTIONS}
    of_user, of_item = _sides(options)
    of_item = {k: v for k, v in of_item.items() if k not in ("dropout", "embedding")}
    return TwoTower(
        Encoder(users, dim, "mlp", hidden, history=past, seed=seeds[0], **of_user),
        Encoder({"id": items["id"]}, dim, "fm", seed=seeds[1], **of_item),
        temperature,
        **of_model,
    )
