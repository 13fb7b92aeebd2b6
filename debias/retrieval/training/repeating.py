"""The weights of repeats, by maximum likelihood of events that were held out."""

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from debias.retrieval.data.interactions import Interactions
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.data.taken import Taken, owners
from debias.retrieval.training.evaluation import Encodes, dot_scores, history_length

USERS = 5_000  # held-out events that the weights are fitted on, at most
PRIOR = 0.01  # precision of the normal prior on each weight, which holds them finite


def withheld(log: Interactions, least: int = 200, share: float = 0.1) -> np.ndarray:
    """(E,) bool: events to fit weights on, which the model is not to learn from.

    What users took last, evenly spaced among those that have two events: `share` of
    them, at least `least` and at most `USERS`. What a user took at the same time is
    withheld together: the rest of a basket would pass for the latest items, of which
    none is taken next. A user whose events all share their time gives one.

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
    """Held-out events as choices among what the user had taken and all the rest.

    Attributes:
        rest: (E,) log-sum-exp of the logits of what the user had not taken.
        owner: (P,) the event that each taken item belongs to.
        logit: (P,) of it.
        features: (P, 3) its 1, log n and log p, as the bonus has them.
        chosen: (P,) bool, whether it is what the user took next.
    """

    rest: np.ndarray
    owner: np.ndarray
    logit: np.ndarray
    features: np.ndarray
    chosen: np.ndarray


def fit_weights(choices: Choices, prior: float = PRIOR) -> np.ndarray:
    """(3,) the weights of the bonus in logits: those of a conditional logit.

    With x the features and z the logits of taken items, they maximise

        sum over repeats of w x  -  prior |w|^2 / 2
            - sum over events of log(exp(rest) + sum over taken items of exp(z + w x))

    which is concave.

    One taken item an event, as good as all the rest: a third repeats, so e^w0 = 1/2.

    >>> one = np.ones(3)
    >>> x = np.stack([one, 0 * one, 0 * one], axis=1)
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

    found: np.ndarray = minimize(loss, np.zeros(3), jac=True, method="BFGS").x
    return found


def fit_repeat(
    model: Encodes,
    log: Interactions,
    held_out: Interactions,
    most: int = USERS,
    block: int = 512,
) -> Repeat:
    """The policy "model" for a model, fitted on events that it has not learned from.

    Args:
        model: A `debias.retrieval.models.RetrievalModel`, trained so that what users
            took competes with all else; its temperature makes logits of its scores.
        log: What users took before the held-out events.
        held_out: Over the tables of `log`.
        most: Held-out events to fit on, evenly spaced.
        block: Users scored at a time.

    Raises:
        ValueError: No event is held out.
    """
    if not len(held_out):
        raise ValueError("held_out must hold at least one event, got none")
    if len(held_out) > most:
        held_out = held_out.take(np.linspace(0, len(held_out) - 1, most).astype(int))
    temperature = float(getattr(model, "temperature", 1.0))
    vectors = model.item_vectors(log.items.columns)
    taken = Taken.of(*log.seen(held_out.user))
    histories, _ = log.histories(max(history_length(model), 1), held_out.user)
    features: dict[str, Any] = {**log.users.take(held_out.user), "history": histories}
    rest, logit = [], []
    for start in range(0, len(held_out), block):
        some = slice(start, start + block)
        users = model.user_vectors({name: x[some] for name, x in features.items()})
        scores = np.asarray(dot_scores(users, vectors), np.float64) / temperature
        here = taken.select(np.arange(len(held_out))[some])
        logit.append(scores[owners(here.offsets), here.rows])
        Repeat("exclude").settle(scores, here.with_repetition())
        rest.append(logsumexp(scores, axis=1))
    owner = owners(taken.offsets)
    choices = Choices(
        np.concatenate(rest),
        owner,
        np.concatenate(logit),
        np.stack(
            [np.ones(len(owner)), np.log(taken.counts), np.log(taken.places)], axis=1
        ),
        taken.rows == held_out.item[owner],
    )
    base, often, late = temperature * fit_weights(choices)
    return Repeat("model", (float(base), float(often), float(late)))
