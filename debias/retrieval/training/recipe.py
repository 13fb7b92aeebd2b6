"""Recipes of retrieval models: tower names and settings."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from debias.retrieval.training.learner import Build, TrainingConfig

TOWERS = {  # functions and classes of `debias.retrieval.models`, by name
    "fm": "fm_tower",
    "dssm": "dssm",
    "senet": "senet_tower",
    "youtube": "youtube_dnn",
    "mind": "MIND",
    "dat": "DAT",
}
TRENDS = ((0.5, 0.2), (1.0, 0.1), (1.0, 0.05))  # candidates, besides no trend
HEADED = ("dssm", "senet")  # towers whose vectors may have a part per target
UNSHARED = ("mind", "dat")  # towers whose ids cannot share embedding rows
KINDS = ("recency", "mean")
HISTORIES = {  # ways in which a tower may read a history; None: its own way
    "fm": KINDS,
    "dssm": KINDS,
    "senet": KINDS,
    "youtube": (None,),
    "mind": (None,),
    "dat": KINDS,
}


class Recipe(NamedTuple):
    """Settings of a learner as JSON values, stored in the manifest of a version.

    Attributes:
        tower: A name in `TOWERS`.
        dim: Dimension of the vectors.
        hidden: Sizes of the hidden layers. "fm" has no hidden layers.
        temperature: Divisor of the inner products.
        seed: Random seed of the initial weights.
        config: Fields of `debias.retrieval.training.learner.TrainingConfig` that differ
            from the defaults.
        compress, rows: Compression of id tables, see
            `debias.layers.embedding.RowEmbedding`.
        history: How the tower reads a history, a value in `HISTORIES[tower]`.
        normalize_users: Whether user vectors have length 1.
        worth: Worth of each target. Each target has its own vectors of dimension `dim`,
            and served vectors concatenate the vectors of all targets. If None, all
            events are of one kind.
    """

    tower: str = "fm"
    dim: int = 64
    hidden: Sequence[int] = (128,)
    temperature: float = 0.3
    seed: int = 0
    config: Mapping[str, Any] = MappingProxyType({})
    compress: str | None = None
    rows: int | None = None
    history: str | None = "recency"
    normalize_users: bool = False
    worth: Mapping[str, float] | None = None

    def build(self) -> "Build":
        """Returns the function that makes the model from schemas of users and items."""
        from debias.retrieval import models

        given: dict[str, Any] = {
            "dim": self.dim,
            "temperature": self.temperature,
            "seed": self.seed,
            "length": self.training_config().length,
            "normalize_users": self.normalize_users,
        }
        if self.tower != "fm":
            given["hidden"] = tuple(self.hidden)
        if HISTORIES[self.tower] != (None,):
            given["history"] = self.history
        if self.compress is not None:
            if self.tower in UNSHARED:
                raise ValueError(f"the tower {self.tower} cannot share rows of ids")
            given |= {"compress": self.compress, "rows": self.rows}
        if self.worth:
            if self.tower not in HEADED:
                raise ValueError(
                    f"the tower {self.tower} has no parts for targets; towers with "
                    f"such parts are {' '.join(HEADED)}"
                )
            worth = tuple(self.worth.values())
            given |= {"dim": self.dim * len(worth), "embedding": self.dim}
            given["worth"] = worth
        make = getattr(models, TOWERS[self.tower])

        def build(users: Any, items: Any) -> Any:
            if self.tower == "dat":  # aligns categories if the items have them
                kind = items.get("category", {}).get("kind")
                category = "category" if kind == "categorical" else None
                return make(users, items, **given, category=category)
            return make(users, items, **given)

        return build

    def training_config(self) -> "TrainingConfig":
        from debias.retrieval.training.learner import TrainingConfig

        return TrainingConfig(**self.config)


def recipe_of(stored: dict[str, Any]) -> Recipe:
    """The recipe that is stored in a report or a manifest.

    Files of earlier releases have no setting for histories. Models of earlier releases
    weight a history by recency, and have user vectors of length 1.
    """
    older = {"averaging": None, "dense_rows": 0}
    config = stored.get("config", {})
    if "averaging" not in config and "history" not in stored:
        stored = {**stored, "config": {**older, **config}}
    return Recipe(**{"history": "recency", "normalize_users": True, **stored})


def candidates(
    recipe: Recipe, towers: Sequence[str], history: str | None = None
) -> list[Recipe]:
    """Makes one recipe for each tower and each way to read a history.

    If the recipe has `compress`, towers in `UNSHARED` are left out. If the recipe has
    `worth`, only towers in `HEADED` are used.

    Raises:
        ValueError: All towers are left out.

    >>> tried = candidates(Recipe(), ["fm", "mind"])
    >>> [(each.tower, each.history) for each in tried]
    [('fm', 'recency'), ('fm', 'mean'), ('mind', None)]
    """
    if recipe.compress is not None:
        able = [tower for tower in towers if tower not in UNSHARED]
        if not able:
            raise ValueError(f"the tower {towers[0]} cannot share rows of ids")
        towers = able
    if recipe.worth:
        able = [tower for tower in towers if tower in HEADED]
        if not able:
            raise ValueError(
                f"the tower {towers[0]} has no parts for targets; towers with such "
                f"parts are {' '.join(HEADED)}"
            )
        towers = able
    return [
        recipe._replace(tower=tower, history=how)
        for tower in towers
        for how in HISTORIES[tower]
        if history is None or how in (None, history)
    ]
