"""An epoch of CLAX's training step, for its two-tower model or a mixture.

`setup` has "components", "hidden", "layers", "batch" and "seed". `arrays` has features
(items, F), item (S, L) and click (S, L). NumPy gathers the features of a batch from one
table instead of CLAX's loader, which copies sessions one by one. The compared value is
the mean loss per session of the first epoch.
"""

from collections.abc import Callable
from typing import Any


def prepare(
    setup: dict[str, Any], arrays: dict[str, Any]
) -> tuple[Callable[[], float], Callable[[float], float]]:
    import jax
    import numpy as np
    import optax
    from clax import MixtureModel, PositionBasedModel
    from clax.metrics import Average, MultiMetric
    from clax.parameters import DeepParameterConfig
    from clax.trainer import Trainer
    from flax import nnx

    features, item, click = (arrays[name] for name in ("features", "item", "click"))
    rngs, size = nnx.Rngs(setup["seed"]), setup["batch"]
    length = item.shape[1]
    attraction = DeepParameterConfig(
        use_feature="features",
        features=features.shape[1],
        hidden_units=setup["hidden"],
        layers=setup["layers"],
        activation_fn=nnx.relu,
        norm=None,
        input_norm=None,
    )
    models = [
        PositionBasedModel(positions=length, attraction=attraction, rngs=rngs)
        for _ in range(setup["components"])
    ]
    model = models[0] if len(models) == 1 else MixtureModel(models)
    adam = optax.adam(1e-3)
    trainer, optimizer = Trainer(adam), nnx.ModelAndOptimizer(model, adam)
    metrics = MultiMetric({"loss": Average("loss")})
    rng = np.random.default_rng(setup["seed"])
    positions = np.broadcast_to(np.arange(1, length + 1), (size, length))
    shown = np.ones((size, length), bool)
    model.train()

    def epoch() -> float:
        order = rng.permutation(len(item))
        for rows in order[: len(order) // size * size].reshape(-1, size):
            batch = {
                "features": features[item[rows]],
                "positions": positions,
                "clicks": click[rows],
                "mask": shown,
            }
            trainer._train_step(model, optimizer, metrics, batch)
        jax.block_until_ready(nnx.state(model))
        loss = float(metrics.compute()["loss"])
        metrics.reset()
        return loss

    return epoch, float
