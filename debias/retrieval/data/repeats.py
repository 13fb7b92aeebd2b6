"""Policies for items that users took before.

Training, evaluation, publishing and serving use the same policy:

    exclude   items that a user took are neither answers nor negatives for this user
    allow     items that a user took compete like all other items
    model     as "allow", but items that a user took get a bonus for count and recency

Suppose that a user took an item n times, and that the item is the p-th most recent of
the user's distinct items. If the model gives the item the logit s, the bonus of the
item is

    w0 + w1 log n + w2 log p + w3 s

The bonus is added to the logit. So the bonus multiplies the odds of the item by e^w0
n^w1 p^w2, and changes the coefficient of s from 1 to 1 + w3. The model was trained on
the events in which the user took the item. So the logit of an item that the user took
says less about the next event than the logits of other items. The fitted w3 is
therefore negative. The powers of count and recency follow Anderson, Kumar, Tomkins and
Vassilvitskii, The Dynamics of Repeat Consumption, WWW 2014. The weights w0 to w3 are
fitted by a conditional logit model over all items
(`debias.retrieval.training.repeating.fit_repeat`).

The linear part of a learner models which items occur together. Every item occurs
together with itself, which says nothing about repeats. So the linear part does not
score items that the user took before.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from debias.data.text import one_of
from debias.retrieval.data.interactions import Interactions, leave_last_out
from debias.retrieval.data.taken import Ragged, Taken, is_taken, owners

POLICIES = ("exclude", "allow", "model")
LEAST = 0.05  # smallest share of repeats in held-out events for which they are modelled


class Repeat(NamedTuple):
    """A policy and, for the policy "model", the weights of the bonus.

    Attributes:
        policy: One of `POLICIES`.
        weights: The weights w0 to w3 for "model", None for the other policies. w0, w1
            and w2 have the unit of the scores, and w3 has no unit.
        linear: For "model", the number of coordinates of the linear part. These
            coordinates precede the last coordinate of a vector. Items taken before are
            scored without the linear part.
    """

    policy: str = "exclude"
    weights: tuple[float, float, float, float] | None = None
    linear: int = 0

    @classmethod
    def of(cls, given: "str | Repeat | Mapping[str, Any]") -> "Repeat":
        """Makes a policy from its name or from the result of `_asdict`.

        Versions of earlier releases have only three weights; their w3 is 0.

        Raises:
            ValueError: The policy is unknown, or "model" does not have finite weights.

        >>> Repeat.of("allow")
        Repeat(policy='allow', weights=None, linear=0)
        >>> Repeat.of({"policy": "model", "weights": [1, 2, -1]}).weights
        (1.0, 2.0, -1.0, 0.0)
        """
        if isinstance(given, Repeat):
            given = given._asdict()
        elif isinstance(given, str):
            given = cls(given)._asdict()
        policy, weights = given["policy"], given["weights"]
        if policy not in POLICIES:
            raise ValueError(one_of("repeat", POLICIES, policy))
        if policy != "model":
            return cls(policy)
        size = 0 if weights is None else len(weights)
        if weights is None or size not in (3, 4) or not np.isfinite(weights).all():
            raise ValueError(
                "repeat 'model' needs weights, four numbers: give what "
                "debias.retrieval.training.repeating.fit_repeat returns"
            )
        base, often, late, own = (float(w) for w in (*weights, 0.0)[:4])
        # Versions of earlier releases were fitted with all coordinates.
        return cls(policy, (base, often, late, own), int(given.get("linear", 0)))

    def bonus(
        self, counts: np.ndarray, places: np.ndarray, scores: np.ndarray
    ) -> np.ndarray:
        """(P,) float32 bonus to add to the scores of items taken before.

        >>> once, three = np.array([1]), np.array([3.0])
        >>> Repeat("model", (1.0, 2.0, -1.0, -0.5)).bonus(once, once, three).tolist()
        [-0.5]
        """
        if self.weights is None:
            return np.zeros(len(counts), np.float32)
        base, often, late, own = self.weights
        extra = base + often * np.log(counts) + late * np.log(places) + own * scores
        return extra.astype(np.float32)

    def own_scores(
        self, scores: np.ndarray, users: np.ndarray, items: np.ndarray, taken: Ragged
    ) -> None:
        """Subtracts the linear part from the scores of items taken before, in place.

        Args:
            scores: (Q, N) inner products of user and item vectors.
            users: (Q, d) user vectors, or (Q, K, d) for several interests with the same
                linear part.
            items: (N, d) item vectors.
            taken: See `settle`.

        >>> user, items = np.array([[1.0, 5.0, 1.0]]), np.array([[1.0, 2.0, 0.5]])
        >>> scores = user @ items.T
        >>> one = np.array([0, 0]), np.array([0, 2])
        >>> Repeat("model", linear=1).own_scores(scores, user, items, one)
        >>> scores.tolist()
        [[1.5]]
        """
        if not self.linear:
            return
        rows, owner = taken[0], owners(taken[1])
        part = slice(-1 - self.linear, -1)
        first = (users[:, 0] if users.ndim == 3 else users)[:, part]
        own = np.einsum("pd,pd->p", first[owner], items[rows, part])
        scores[owner, rows] -= own  # once, even if a pair occurs several times

    def settle(self, scores: np.ndarray, taken: Ragged) -> None:
        """Applies the policy to scores (Q, N), in place.

        Args:
            scores: Scores of Q queries over all items.
            taken: (rows, offsets) of the items that the user of each query took, with
                repetition and in order of time; see `Interactions.seen`.

        >>> scores = np.zeros((1, 3))
        >>> Repeat("exclude").settle(scores, (np.array([1]), np.array([0, 1])))
        >>> scores.tolist()
        [[0.0, -inf, 0.0]]
        """
        rows, offsets = taken
        if self.policy == "exclude":
            scores[owners(offsets), rows] = -np.inf
        elif self.policy == "model":
            once = Taken.of(rows, offsets)
            own = owners(once.offsets), once.rows
            scores[own] += self.bonus(once.counts, once.places, scores[own])


class Inferred(NamedTuple):
    """The policy inferred from a log.

    Attributes:
        policy: "model" if the share of repeats is at least `least`, else "exclude".
        repeated: Number of held-out events whose item the user took before.
        events: Number of held-out events.
        least: The smallest share of repeats for which the policy is "model".
    """

    policy: str
    repeated: int
    events: int
    least: float

    def __str__(self) -> str:
        if not self.events:
            return f"repeat {self.policy}: {self.finding}"
        way = "at least" if self.policy == "model" else "below"
        return f"--repeat {self.policy}: {self.finding}, {way} {self.least:.0%}"

    @property
    def finding(self) -> str:
        """Describes the counts in words, for use in a sentence."""
        if not self.events:
            return "no event is held out from which repeats could be inferred"
        share = self.repeated / max(self.events, 1)
        return (
            f"in {self.repeated:,} of {self.events:,} last events ({share:.1%}), the "
            "user had taken the item before"
        )


def infer_repeat(
    log: Interactions, held_out: Interactions | None = None, least: float = LEAST
) -> Inferred:
    """Infers the policy for a log from repeats in held-out events.

    The policy "exclude" misses all repeats, so it is bad if repeats are frequent. If
    repeats are rare, "exclude" leaves more places in the answer for other items.

    Args:
        log: Events of users and items.
        held_out: Later events. If None, each user's last event is held out of `log`.
        least: Smallest share of repeats for which the policy is "model".

    >>> from debias.retrieval.data.interactions import from_columns
    >>> log = from_columns(["u", "u", "v", "v"], ["i", "i", "i", "j"], [1, 2, 1, 2])
    >>> infer_repeat(log).policy, infer_repeat(log).repeated, infer_repeat(log).events
    ('model', 1, 2)
    """
    if held_out is None:
        log, held_out = leave_last_out(log)
    again = is_taken(held_out.user.astype(np.int64), held_out.item, log.seen())
    share = float(again.mean()) if len(again) else 0.0
    policy = "model" if share >= least else "exclude"
    return Inferred(policy, int(again.sum()), len(again), least)
