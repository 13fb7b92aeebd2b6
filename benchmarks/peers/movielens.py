"""An epoch of another library's two-tower model on ids, with in-batch softmax.

`setup` has "library", "users", "items", "dim" and "batch". `arrays` has user (E,) and
item (E,). keras-rs and TFRS apply the logQ correction and mask accidental hits, as
their guides do. rechub trains its DSSM with its own trainer. The compared value is the
number of events in an epoch.
"""

from collections.abc import Callable
from typing import Any


def prepare(
    setup: dict[str, Any], arrays: dict[str, Any]
) -> tuple[Callable[[], int], Callable[[int], int]]:
    libraries = {"keras_rs": by_keras_rs, "tfrs": by_tfrs, "rechub": by_rechub}
    make = libraries[setup["library"]]
    return make(setup, arrays["user"], arrays["item"]), int


def by_keras_rs(setup: dict[str, Any], user: Any, item: Any) -> Callable[[], int]:
    import os

    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras
    import keras_rs
    import numpy as np

    size, dim = setup["batch"], setup["dim"]
    share = np.bincount(item, minlength=setup["items"]) / len(item)

    class TwoTower(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.user = keras.layers.Embedding(setup["users"], dim)
            self.item = keras.layers.Embedding(setup["items"], dim)
            self.correct = keras_rs.layers.SamplingProbabilityCorrection()
            self.mask = keras_rs.layers.RemoveAccidentalHits()

        def call(self, batch: Any) -> Any:
            u = keras.ops.normalize(self.user(batch["user"]), axis=-1)
            v = keras.ops.normalize(self.item(batch["item"]), axis=-1)
            scores = keras.ops.matmul(u, keras.ops.transpose(v)) / 0.1
            scores = self.correct(scores, batch["share"])
            labels = keras.ops.eye(keras.ops.shape(scores)[0])
            return self.mask(scores, labels, batch["item"])

    model = TwoTower()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss, steps_per_execution=16)
    count = len(user) // size * size
    batch = {"user": user[:count], "item": item[:count]}
    batch["share"] = share[batch["item"]].astype("float32")
    target = np.tile(np.arange(size), count // size)

    def epoch() -> int:
        order = np.random.permutation(count)
        model.fit(
            {name: values[order] for name, values in batch.items()},
            target,
            batch_size=size,
            shuffle=False,
            verbose=0,
        )
        return count

    return epoch


def by_tfrs(setup: dict[str, Any], user: Any, item: Any) -> Callable[[], int]:
    import os

    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # required by its import
    import numpy as np
    import tensorflow as tf
    import tensorflow_recommenders as tfrs
    import tf_keras

    size, dim = setup["batch"], setup["dim"]
    share = np.bincount(item, minlength=setup["items"]) / len(item)

    class TwoTower(tfrs.Model):
        def __init__(self) -> None:
            super().__init__()
            self.user = tf_keras.layers.Embedding(setup["users"], dim)
            self.item = tf_keras.layers.Embedding(setup["items"], dim)
            self.task = tfrs.tasks.Retrieval(
                temperature=0.1, remove_accidental_hits=True
            )

        def compute_loss(self, batch: Any, training: bool = False) -> Any:
            return self.task(
                tf.math.l2_normalize(self.user(batch["user"]), axis=-1),
                tf.math.l2_normalize(self.item(batch["item"]), axis=-1),
                candidate_sampling_probability=batch["share"],
                candidate_ids=batch["item"],
            )

    model = TwoTower()
    model.compile(tf_keras.optimizers.Adam(0.003), steps_per_execution=16)
    count = len(user) // size * size
    batch = {"user": user[:count], "item": item[:count]}
    batch["share"] = share[batch["item"]].astype("float32")
    # Events are shuffled once, then batches, which are cached, as in its guide.
    held = tf.data.Dataset.from_tensor_slices(batch).shuffle(count).batch(size).cache()
    feed = held.shuffle(count // size)

    def epoch() -> int:
        model.fit(feed, verbose=0)
        return count

    return epoch


def by_rechub(setup: dict[str, Any], user: Any, item: Any) -> Callable[[], int]:
    import torch
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.matching import DSSM
    from torch_rechub.trainers import MatchTrainer

    size, dim = setup["batch"], setup["dim"]
    users = [SparseFeature("user", setup["users"], dim)]
    items = [SparseFeature("item", setup["items"], dim)]
    towers = {"dims": [dim]}
    model = DSSM(users, items, towers, towers, temperature=0.1)
    trainer = MatchTrainer(
        model, mode=0, in_batch_neg=True, in_batch_neg_ratio=size - 1
    )
    count = len(user) // size * size
    ids = {"user": torch.from_numpy(user), "item": torch.from_numpy(item)}

    def epoch() -> int:
        # Whole batches by index, because its own loader collates event by event.
        order = torch.randperm(len(user))[:count].reshape(-1, size)
        nothing = torch.zeros(size)
        loader = [({n: v[rows] for n, v in ids.items()}, nothing) for rows in order]
        trainer.train_one_epoch(loader)
        return count

    return epoch
