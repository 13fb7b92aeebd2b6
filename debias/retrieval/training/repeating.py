"""Fits the bonus for repeats by maximum likelihood on held-out events."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from debias.retrieval.data.interactions import Interactions
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.data.taken import Taken, owners
from debias.retrieval.training.evaluation import Encodes, dot_scores, history_length

USERS = 5_000  # most held-out events to which the weights are fitted
BLOCK = 512  # users scored at a time
CUTOFF = 50  # cutoff of the NDCG that chooses the shift
SHIFTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
LEAST_OWN = -1.0  # lower bound of w3, at which the scores of taken items do not count
PRIOR = 0.01  # precision of the normal prior on each weight, which keeps weights finite


def withheld(log: Interactions, least: int = 600, share: float = 0.1) -> np.ndarray:
    """(E,) bool, events that are withheld from training to fit the bonus weights.

    The last event of each user in a sample is withheld. The sample is evenly spaced
    among the users with at least two events. The sample contains a share `share` of the
    users with at least two events, but at least `least` and at most `USERS` users. The
    user's other events at the time of the last event are also withheld. Otherwise, the
    rest of a basket would count as the most recent items, which a user never takes
    next. If all events of a user have the same time, only one event is withheld.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> withheld(from_columns(["u", "u", "v"], ["i", "j", "i"], [2, 1, 1])).tolist()
    [True, False, False]
    """
    order, offsets = log.by_user()
    users = np.flatnonzero(np.diff(offsets) > 1)
    count = min(len(users), USERS, max(least, round(share * len(users))))
    some = users[np.linspace(0, len(users) - 1, count).astype(int)]
    time, last = log.time[order], offsets[1:] - 1
    inside = time == np.repeat(time[last], np.diff(offsets))
    counts = np.bincount(log.user[order], inside, minlength=len(log.users))
    one = np.arange(len(log)) == np.repeat(last, np.diff(offsets))
    whole = np.repeat(counts == np.diff(offsets), np.diff(offsets))
    inside = np.where(whole, one, inside) & np.isin(log.user[order], some)
    out = np.zeros(len(log), bool)
    out[order] = inside
    return out


class Choices(NamedTuple):
    """Held-out events as choices among items taken before and all other items.

    Attributes:
        rest: (E,) log-sum-exp of the logits of items that the user did not take before.
        owner: (P,) index of the event to which each taken item belongs.
        logit: (P,) logit of each taken item.
        features: (P, 4) terms of the bonus: 1, log n, log p and the logit.
        chosen: (P,) bool, whether the user took this item next.
    """

    rest: np.ndarray
    owner: np.ndarray
    logit: np.ndarray
    features: np.ndarray
    chosen: np.ndarray


def fit_weights(choices: Choices, prior: float = PRIOR) -> np.ndarray:
    """(4,) weights of the bonus for logits, fitted by a conditional logit model.

    Let x be the features and z the logits of taken items. The weights w maximise

        sum over repeats of w x  -  prior |w|^2 / 2
            - sum over events of log(exp(rest) + sum over taken items of exp(z + w x))

    The likelihood is concave. w3 must be at least -1. If w3 were below -1, a higher
    logit would lower the score of an item that the user took. With few events, a w3
    below -1 can be the optimum by chance.

    Example: each event has one taken item, whose logit equals the log-sum-exp of all
    other logits. A third of the events repeat this item, so e^w0 = 1/2.

    >>> one = np.ones(3)
    >>> x = np.stack([one, 0 * one, 0 * one, 0 * one], axis=1)
    >>> chosen = np.array([True, False, False])
    >>> three = Choices(0 * one, np.arange(3), 0 * one, x, chosen)
    >>> round(float(np.exp(fit_weights(three, 0.0)[0])), 3)
    0.5
    """
    events, wanted = len(choices.rest), choices.features[choices.chosen].sum(axis=0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logit = choices.logit + choices.features @ weights
        top = choices.rest.copy()
        np.maximum.at(top, choices.owner, logit)
        odds = np.exp(logit - top[choices.owner])
        total = np.exp(choices.rest - top)
        total += np.bincount(choices.owner, odds, minlength=events)
        chance = odds / total[choices.owner]
        value = np.sum(top + np.log(total)) - wanted @ weights
        slope = choices.features.T @ chance - wanted
        return (
            float(value + prior * weights @ weights / 2) / events,
            (slope + prior * weights) / events,
        )

    start = np.zeros(choices.features.shape[1])
    bounds = [*[(None, None)] * (len(start) - 1), (LEAST_OWN, None)]
    exact = {"ftol": 1e-12, "gtol": 1e-6, "maxiter": 1000}
    found: np.ndarray = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=exact
    ).x
    return found


def fit_repeat(model: Encodes, log: Interactions, held_out: Interactions) -> Repeat:
    """Fits the policy "model" on events that the model was not trained on.

    Args:
        model: A `debias.retrieval.models.RetrievalModel` that was trained with taken
            items among the negatives. The temperature of the model converts scores to
            logits.
        log: Events before the held-out events.
        held_out: Held-out events, with the tables of `log`. If there are more than
            `USERS` events, the used events are evenly spaced.

    Raises:
        ValueError: `held_out` is empty.
    """
    items = model.item_vectors(log.items.columns)
    length = max(history_length(model), 1)
    linear = Repeat("model", linear=getattr(model, "linear", 0))

    def score(rows: np.ndarray) -> list[np.ndarray]:
        history, _ = log.histories(length, rows)
        users = model.user_vectors({**log.users.take(rows), "history": history})
        scores = dot_scores(users, items)
        linear.own_scores(scores, users, items, log.seen(rows))
        return [scores]

    temperature = float(getattr(model, "temperature", 1.0))
    (found,) = fit_repeats(score, log, held_out, temperature)
    return found._replace(linear=linear.linear)


def fit_repeats(
    score: Callable[[np.ndarray], Iterable[np.ndarray]],
    log: Interactions,
    held_out: Interactions,
    temperature: float = 1.0,
) -> list[Repeat]:
    """Fits several scorers for the policy named "model", and shares their computations.

    Args:
        score: Function from rows of users (B,) to an iterator over score matrices (B,
            N), one per scorer. `fit_repeats` overwrites a matrix before it requests the
            next matrix.
        log, held_out: See `fit_repeat`.
        temperature: Divisor that converts scores to logits.

    Raises:
        ValueError: `held_out` is empty.
    """
    if not len(held_out):
        raise ValueError("held_out must hold at least one event, got none")
    if len(held_out) > USERS:
        held_out = held_out.take(np.linspace(0, len(held_out) - 1, USERS).astype(int))
    taken = Taken.of(*log.seen(held_out.user))
    found: dict[int, list[_Split]] = {}
    for some in np.split(np.arange(len(held_out)), range(BLOCK, len(held_out), BLOCK)):
        here, target = taken.select(some), held_out.item[some]
        for number, scores in enumerate(score(held_out.user[some])):
            parts = _split(scores, here, target, temperature)
            found.setdefault(number, []).append(parts)
    owner = owners(taken.offsets)
    past = np.ones(len(owner)), np.log(taken.counts), np.log(taken.places)
    chosen, policies = taken.rows == held_out.item[owner], []
    for pieces in found.values():
        parts = _Split(*(np.concatenate(part) for part in zip(*pieces, strict=True)))
        features = np.stack([*past, parts.logit], axis=1)
        choices = Choices(parts.rest, owner, parts.logit, features, chosen)
        weights = fit_weights(choices)
        weights[0] += best_shift(choices, weights, parts.top, parts.target)
        base, often, late = (float(weight) for weight in temperature * weights[:3])
        policies.append(Repeat("model", (base, often, late, float(weights[3]))))
    return policies


class _Split(NamedTuple):
    """Scores of a block of events, as the inputs of `Choices` and `best_shift`."""

    rest: np.ndarray
    logit: np.ndarray
    top: np.ndarray
    target: np.ndarray


def _split(
    scores: np.ndarray, taken: Taken, target: np.ndarray, temperature: float
) -> _Split:
    """Splits scores into logits of taken and other items; overwrites the scores."""
    scores /= temperature
    own = owners(taken.offsets), taken.rows
    logit = scores[own].astype(np.float64)
    scores[own] = -np.inf
    wanted = scores[np.arange(len(scores)), target]
    count = min(CUTOFF, scores.shape[1])
    top = np.sort(np.partition(scores, -count, axis=1)[:, -count:], axis=1)
    most = top[:, -1:].copy()
    most[np.isneginf(most)] = 0.0  # no items are left
    scores -= most
    total = np.exp(scores, out=scores).sum(axis=1, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return _Split(most[:, 0] + np.log(total), logit, top, wanted)


def best_shift(
    choices: Choices, weights: np.ndarray, top: np.ndarray, target: np.ndarray
) -> float:
    """The shift of w0, a value in `SHIFTS`, that gives the highest NDCG at 50.

    The shift is 0 if no gain exceeds two standard errors.

    The likelihood assumes calibrated logits. If the logits of items that the user did
    not take are overconfident, the items that the user took rank too low. Adding a
    constant to w0 raises the items that the user took.

    Args:
        choices: The choices to which the weights were fitted.
        weights: (4,) weights w0 to w3 of the bonus for logits.
        top: (E, k) largest logits of items not taken before, in increasing order. k is
            50, or the size of a smaller catalogue.
        target: (E,) logit of the next item, or minus infinity for a repeat.

    Example: two users repeat an item with logit -1, and two other items have the logits
    0 and 1. A shift of 2 makes the score of the repeated item equal to the larger
    logit, 1.

    >>> two = Choices(np.zeros(2), np.array([0, 1]), -np.ones(2), np.zeros((2, 4)),
    ...               np.array([True, True]))
    >>> top = np.array([[0.0, 1.0], [0.0, 1.0]])
    >>> best_shift(two, np.zeros(4), top, np.array([-np.inf, -np.inf]))
    2.0
    """
    events, owner = len(choices.rest), choices.owner
    base = choices.logit + choices.features @ weights
    again = np.bincount(owner[choices.chosen], minlength=events) > 0
    fresh = (top > target[:, None]).sum(axis=1)

    def worth(shift: float) -> np.ndarray:
        logit = base + shift
        wanted = np.where(again, -np.inf, target)
        wanted[owner[choices.chosen]] = logit[choices.chosen]
        ahead = np.where(again, (top > wanted[:, None]).sum(axis=1), fresh)
        ahead += np.bincount(owner, logit > wanted[owner], events).astype(int)
        return np.where(ahead < CUTOFF, 1 / np.log2(2.0 + ahead), 0.0)

    plain, best = worth(0.0), (0.0, 0.0)
    for shift in SHIFTS:
        gain = worth(shift) - plain
        if gain.mean() > max(best[0], 2 * gain.std() / np.sqrt(events)):
            best = float(gain.mean()), shift
    return best[1]
