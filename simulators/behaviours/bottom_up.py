"""Users who read from the last item to the first."""

from dataclasses import dataclass, field

import numpy as np

from simulators.behaviours.base import (
    Behaviour,
    floats,
    turned,
)
from simulators.behaviours.chain import Cascade, Chain


@dataclass(frozen=True)
class BottomUp(Behaviour):
    """Reads the list like `reader`, but from the last item to the first.

    `examination` conditions on the clicks below k, which this user made before reading
    k. `conditional_click_probability` conditions on the clicks above k, so that
    populations can also contain users who read downwards. Let p_k = P(c_1 .. c_k),
    computed for a user who starts at k with the marginal examination of k. The result
    is p_k with c_k = 1, divided by p_{k-1}.

    >>> BottomUp(Cascade()).click_probability(np.array([[1.0, 0.25]])).tolist()
    [[0.75, 0.25]]
    """

    reader: Chain = field(default_factory=Cascade)

    def __post_init__(self) -> None:
        if not isinstance(self.reader, Chain) or len(self.reader.entries(99)) > 1:
            raise ValueError(
                f"BottomUp needs a reader of one column, got {self.reader}"
            )

    @property
    def satisfiable(self) -> bool:  # type: ignore[override]
        """Whether `reader` uses satisfaction."""
        return self.reader.satisfiable

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        return self.reader.perceive(attraction)

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        upwards = turned(attraction), turned(satisfaction)
        return self.reader.click_probability(*upwards)[:, ::-1]

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        click = np.asarray(click)[:, ::-1]
        upwards = turned(attraction), click, turned(satisfaction)
        return self.reader.examination(*upwards)[:, ::-1]

    def conditional_click_probability(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        upwards, satisfied = turned(attraction), turned(satisfaction)
        upwards = upwards.astype(float)
        satisfied = None if satisfied is None else satisfied.astype(float)
        click = np.asarray(click, bool)[:, ::-1]
        start = self.reader.marginal_examination(upwards, satisfied)
        sessions, size = upwards.shape
        conditional = np.empty(upwards.shape)
        above = np.ones(sessions)  # P(the clicks read after rank k)
        for k in reversed(range(size)):
            joint = np.empty((2, sessions))
            for now in (0, 1):
                rest = click[:, k:].copy()
                rest[:, 0] = now
                own = None if satisfied is None else satisfied[:, k:]
                joint[now] = self._likelihood(upwards[:, k:], rest, start[:, k], own)
            conditional[:, k] = joint[1] / np.where(above > 0, above, 1)
            above = np.where(click[:, k], joint[1], joint[0])
        return conditional[:, ::-1].astype(floats(attraction).dtype, copy=False)

    def _likelihood(
        self,
        gamma: np.ndarray,
        click: np.ndarray,
        start: np.ndarray,
        satisfaction: np.ndarray | None,
    ) -> np.ndarray:
        made = lambda k, _: click[:, k]  # noqa: E731
        read = self.reader._read(gamma, made, satisfaction, {0: start})[1]
        clicked = read * self.reader.perceive(gamma)
        return np.where(click, clicked, 1 - clicked).prod(axis=1)

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        upwards = attraction[:, ::-1], rng, turned(satisfaction)
        click, examined = self.reader._sample(*upwards)
        return click[:, ::-1], examined[:, ::-1]
