"""CLAX's click simulator, a round whenever a line comes in.

Run by the Python of an environment that has `clax-models`; see `benchmarks.speed`. The
first line is {"population", "sessions", "theta", "seed"}, answered with the versions
and the click rate at each rank. Each further line is answered once CLAX has sampled the
sessions again. Attraction and examination are handed over as probabilities, so that
CLAX is spared its embeddings and the sigmoid.
"""

import json
import sys
from importlib.metadata import version
from typing import Any


def sampler(population: str, sessions: int, theta: list[float], seed: int) -> Any:
    """A function without arguments that samples clicks (sessions, L) and waits."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from clax import (
        DocumentCTRModel,
        MixtureModel,
        PositionBasedModel,
        RankCTRModel,
    )
    from clax.parameters import Parameter
    from flax import nnx

    class Given(Parameter):
        def __init__(self, name: str) -> None:
            self.name = name

        def prob(self, batch: dict[str, Any]) -> Any:
            return batch[self.name]

        def logit(self, batch: dict[str, Any]) -> Any:
            raise NotImplementedError  # sampling asks for probabilities only

        log_prob = logit

    shape = (sessions, len(theta))
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

    model = {"pbm": position_based, "mixed": mixed}[population]()
    sample = nnx.jit(lambda model, batch, rngs: model.sample(batch, rngs))
    return lambda: jax.block_until_ready(sample(model, batch, rngs)).clicks


def main() -> None:
    run = sampler(**json.loads(sys.stdin.readline()))
    rates = run().mean(axis=0).tolist()
    versions = {name: version(name) for name in ("clax-models", "jax")}
    print(json.dumps({"rates": rates, "versions": versions}), flush=True)
    for _ in sys.stdin:
        run()
        print("{}", flush=True)


if __name__ == "__main__":
    main()
