"""CLAX's click simulator on lists with given attraction and examination.

Parameters are passed as probabilities, so that CLAX needs no embeddings or sigmoid.
`setup` has "population", "sessions", "theta" and "seed". The compared value is the
click rate at each rank.
"""

from collections.abc import Callable
from typing import Any


def prepare(
    setup: dict[str, Any], arrays: dict[str, Any]
) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from clax import DocumentCTRModel, MixtureModel, PositionBasedModel, RankCTRModel
    from clax.parameters import Parameter
    from flax import nnx

    class Given(Parameter):
        def __init__(self, name: str) -> None:
            self.name = name

        def prob(self, batch: dict[str, Any]) -> Any:
            return batch[self.name]

        def logit(self, batch: dict[str, Any]) -> Any:
            raise NotImplementedError  # sampling only needs probabilities

        log_prob = logit

    theta, seed = setup["theta"], setup["seed"]
    shape = (setup["sessions"], len(theta))
    attraction = np.random.default_rng(seed).random(shape, np.float32)
    batch = {
        "attraction": jnp.asarray(attraction),
        "examination": jnp.broadcast_to(jnp.asarray(theta, jnp.float32), shape),
        "positions": jnp.broadcast_to(jnp.arange(1, 1 + shape[1]), shape),
        "mask": jnp.ones(shape, bool),
    }
    rngs = nnx.Rngs(seed)

    def position_based() -> Any:
        seen, wanted = Given("examination"), Given("attraction")
        return PositionBasedModel(examination=seen, attraction=wanted, rngs=rngs)

    def mixed() -> Any:
        users = [
            position_based(),
            RankCTRModel(ctr=Given("examination"), rngs=rngs),
            DocumentCTRModel(ctr=Given("attraction"), rngs=rngs),
        ]
        return MixtureModel(users)

    model = {"pbm": position_based, "mixed": mixed}[setup["population"]]()
    sample = nnx.jit(lambda model, batch, rngs: model.sample(batch, rngs))
    return (
        lambda: jax.block_until_ready(sample(model, batch, rngs)).clicks,
        lambda clicks: clicks.mean(axis=0).tolist(),
    )
