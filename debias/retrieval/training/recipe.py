"""Towers by name, and the settings that make one: plain values, no TensorFlow."""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from debias.retrieval.training.learner import Build, TrainingConfig

TOWERS = {  # name to the function or class of `debias.retrieval.models`
    "dssm": "dssm",
    "fm": "fm_tower",
    "senet": "senet_tower",
    "youtube": "youtube_dnn",
    "mind": "MIND",
    "dat": "DAT",
}


class Recipe(NamedTuple):
    """How a learner is made, as JSON values; travels in the manifest of a version.

    Attributes:
        tower: A name of `TOWERS`.
        dim: Size of a vector.
        hidden: Hidden sizes of the towers; "fm" has none.
        temperature: Divides the cosines.
        seed: Determines the initial weights.
        config: The fields of a `debias.retrieval.training.learner.TrainingConfig`.
        compress, rows: As for `debias.layers.embedding.RowEmbedding`, of ids.
    """

    tower: str
    dim: int
    hidden: list[int]
    temperature: float
    seed: int
    config: dict[str, Any]
    compress: str | None = None
    rows: int | None = None

    def build(self) -> "Build":
        """What makes the model from schemas of users and items."""
        from debias.retrieval import models

        given: dict[str, Any] = {
            "dim": self.dim,
            "temperature": self.temperature,
            "seed": self.seed,
            "length": self.config["length"],
        }
        if self.tower != "fm":
            given["hidden"] = self.hidden
        if self.tower == "dat":
            given["category"] = None
        if self.compress is not None:
            if self.tower in ("mind", "dat"):
                raise ValueError(f"the tower {self.tower} cannot share rows of ids")
            given |= {"compress": self.compress, "rows": self.rows}
        return partial(getattr(models, TOWERS[self.tower]), **given)

    def training_config(self) -> "TrainingConfig":
        from debias.retrieval.training.learner import TrainingConfig

        return TrainingConfig(**self.config)
