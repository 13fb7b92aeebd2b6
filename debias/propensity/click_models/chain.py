"""Click models of users who read from the top: cascade, DCM, CCM, DBN, SDBN.

A reader always examines rank 1, and clicks an examined item with probability a, the
attraction of the item. After a click, the reader continues with probability phi. After
an examined item without a click, the reader continues with probability tau. A reader
who does not continue leaves the list. The models differ in phi and tau:

    cascade     phi 0                               tau 1
    DCM         phi lambda_k                        tau 1
    CCM         phi t2 (1 - a) + t3 a               tau t1
    DBN         phi gamma (1 - s)                   tau gamma
    SDBN        phi 1 - s                           tau 1

The reader examined all items up to the last click. The only hidden variable is how far
the reader went after the last click. A forward and a backward pass over the ranks,
vectorised over sessions, compute the posterior of this variable. Padding within a list
is skipped.

Sources: Guo et al., Efficient Multiple-Click Models in Web Search, WSDM 2009 (DCM); Guo
et al., Click Chain Model in Web Search, WWW 2009 (CCM); Chapelle and Zhang, A Dynamic
Bayesian Network Click Model for Web Search Ranking, WWW 2009 (DBN, SDBN).
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

from debias.data import ClickLog
from debias.propensity.cells import Pairs, pairs
from debias.propensity.click_models.base import (
    ClickModel,
    Parameter,
    check,
    logit_error,
)
from debias.propensity.click_models.factored import PRIOR, at_ranks, smoothed
from debias.propensity.pbm_maximum import TINY, Prior

CHUNK = 8192  # sessions at once, so that ten ranks of float64 fit into the cache


class Chunk(NamedTuple):
    """Arrays of s sessions with shape (L, s), except `last`; rank is the first axis.

    Attributes:
        pair: int64 index of each cell's pair; P, the number of pairs, at padding.
        click: bool.
        shown: bool.
        more: bool, whether the list has an item further down.
        final: bool, whether the cell has the session's last click.
        last: (s,) rank from 0 of the last click; -1 if the session has no click.
    """

    pair: np.ndarray
    click: np.ndarray
    shown: np.ndarray
    more: np.ndarray
    final: np.ndarray
    last: np.ndarray


def lay_out(log: ClickLog, known: Pairs) -> list[Chunk]:
    """Cuts a log into chunks whose first axis is the rank."""
    index = known.index(log)
    chunks = []
    for start in range(0, log.sessions, CHUNK):
        part = slice(start, start + CHUNK)
        click = np.ascontiguousarray(log.click[part].T)
        shown = np.ascontiguousarray(log.mask[part].T)
        below = np.logical_or.accumulate(shown[::-1])[::-1]
        more = np.zeros_like(shown)
        more[:-1] = below[1:] & shown[:-1]
        last = len(click) - 1 - np.argmax(click[::-1], axis=0)
        last[~click.any(axis=0)] = -1
        final = click & (np.arange(len(click))[:, None] == last)
        pair = np.ascontiguousarray(index[part].T)
        chunks.append(Chunk(pair, click, shown, more, final, last))
    return chunks


class Hidden(NamedTuple):
    """Probabilities of examination and of no further click, (L, s) each.

    Attributes:
        examined: P(examined | all clicks of the session).
        ahead: P(no click below k | k + 1 is reached).
        end: P(no click below k | a click at k) = 1 - phi + phi ahead.
    """

    examined: np.ndarray
    ahead: np.ndarray
    end: np.ndarray


def look_back(
    part: Chunk, attraction: np.ndarray, phi: np.ndarray, tau: np.ndarray
) -> Hidden:
    """Posterior of examination given all clicks of a session.

    Let X_k = P(no click from k on | k examined) = (1 - a_k)(1 - tau + tau X_{k+1}). A
    reader who examined k without a click continued with probability tau X_{k+1} / (1 -
    tau + tau X_{k+1}). After the last click, phi replaces tau.

    Args:
        part: The sessions.
        attraction: (L, s) attraction of the items, 0 at padding.
        phi: (L, s) P(continues | click).
        tau: (L, s) P(continues | examined, no click), 1 at padding.
    """
    ranks = len(attraction)
    # From the last rank up: no further click below.
    ahead = np.empty_like(attraction)
    x = np.ones(attraction.shape[1])
    stay = np.empty_like(attraction)  # 1 - tau + tau X, no click after a skip
    for k in range(ranks - 1, -1, -1):
        ahead[k] = x
        stay[k] = 1 - tau[k] * (1 - x)
        x = (1 - attraction[k]) * stay[k]
    # From the top down: the user continued with the posterior of phi or tau.
    end = 1 - phi * (1 - ahead)
    on = np.where(part.final, phi, tau) * ahead
    on /= np.maximum(np.where(part.final, end, stay), TINY)
    examined = np.empty_like(attraction)
    examined[0] = 1.0
    for k in range(1, ranks):
        np.multiply(examined[k - 1], on[k - 1], out=examined[k])
        examined[k][part.last >= k] = 1.0
    return Hidden(examined, ahead, end)


Values = Mapping[str, np.ndarray]  # of parameters, by name
Moves = tuple[np.ndarray, np.ndarray | float]  # phi and tau
Counts = dict[str, tuple[np.ndarray, np.ndarray]]  # successes and trials, by name


class Scores(NamedTuple):
    """Sums over sessions of products of scores, for P pairs and N other parameters.

    A score is the derivative of a session's log-likelihood with respect to the logit of
    a parameter.

    Attributes:
        own: (P + 1,) sums of squared scores of each pair, by name of the pair
            parameter; the last entry is for padding.
        cross: (N, P + 1) sums of the score of each other parameter times the score of
            each pair, by name of the pair parameter.
        joint: (N, N) sums of products of the scores of two other parameters.
    """

    own: dict[str, np.ndarray]
    cross: dict[str, np.ndarray]
    joint: np.ndarray


class Chain(ClickModel):
    """Base of the chain models; subclasses define phi, tau and expected counts."""

    @classmethod
    @abstractmethod
    def moves(cls, values: Values) -> Moves:
        """Computes phi and tau from parameter values, which are broadcast to (L, s)."""

    @classmethod
    @abstractmethod
    def expect(cls, part: Chunk, values: Values, hidden: Hidden) -> Counts:
        """Expected successes and trials, by name of the parameter.

        The shapes are (L, s) for a parameter of pairs, and (n, L, s) for n other
        parameters. If "attraction" is left out, its counts follow from clicks and
        examination.
        """

    @classmethod
    def broadcast(cls, name: str, value: np.ndarray) -> np.ndarray:
        """Broadcasts a parameter that does not belong to pairs to (L, s) arrays."""
        return value.reshape(-1, 1, 1) if value.size > 1 else value

    @classmethod
    def _values(cls, values: Values, pair: np.ndarray) -> dict[str, np.ndarray]:
        gathered = {}
        for name, value in values.items():
            if name in cls.of_pairs:
                # Padding reads 0: no click is possible there.
                unknown = np.append(value, 0.0)
                gathered[name] = unknown[pair]
            else:
                gathered[name] = cls.broadcast(name, value)
        return gathered

    @classmethod
    def _expect(cls, part: Chunk, values: Values) -> Counts:
        """Expected successes and trials of all parameters: the E-step of a chunk."""
        own = cls._values(values, part.pair)
        # Probabilities of continuing, and the posterior given the clicks.
        phi, tau = cls.moves(own)
        tau = np.where(part.shown, tau, 1.0)
        hidden = look_back(
            part, own["attraction"], np.broadcast_to(phi, tau.shape), tau
        )
        counts = cls.expect(part, own, hidden)
        if "attraction" not in counts:
            # Attractive items without a click: only if they were not examined.
            a = own["attraction"]
            liked = part.click + ~part.click * (1 - hidden.examined) * a
            counts["attraction"] = (liked, part.shown)
        return counts

    @classmethod
    def renew(
        cls,
        sessions: list[Chunk],
        values: dict[str, np.ndarray],
        prior: Prior,
        fixed: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """One EM pass; returns (successes + prior[0]) / (trials + prior[1])."""
        # E-step: successes and trials, summed by pair or by rank.
        totals: dict[str, np.ndarray] = {}
        for part in sessions:
            for name, counts in cls._expect(part, values).items():
                if name not in totals:
                    totals[name] = np.zeros((2, values[name].size + 1))
                for total, count in zip(totals[name], counts, strict=True):
                    _add(total, count, part.pair, name in cls.of_pairs)
        # M-step: smoothed rates.
        renewed = dict(values)
        for name in totals.keys() - set(fixed):
            total = totals[name]
            with np.errstate(invalid="ignore"):
                rate = (total[0] + prior[0]) / (total[1] + prior[1])
            renewed[name] = np.nan_to_num(rate[:-1], nan=0.5).reshape(
                values[name].shape
            )
        return renewed

    @classmethod
    def _estimate(
        cls,
        log: ClickLog,
        others: Mapping[str, np.ndarray],
        iterations: int,
        prior: Prior,
        fixed: Sequence[str] = (),
    ) -> Self:
        check(iterations, prior)
        known = pairs(log)
        sessions = lay_out(log, known)
        values = {name: np.full(len(known), 0.5) for name in cls.of_pairs}
        values.update(others)
        for _ in range(iterations):
            values = cls.renew(sessions, values, prior, fixed)
        errors = cls._errors(sessions, values, prior, fixed)
        parameters = {n: Parameter(values[n], errors[n]) for n in values}
        return cls(known, parameters)

    @classmethod
    def _errors(
        cls,
        sessions: list[Chunk],
        values: dict[str, np.ndarray],
        prior: Prior,
        fixed: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Standard errors of logits from the empirical information.

        The score of a session is its expected successes minus value times trials
        (Fisher's identity). The information is the sum of squared scores plus the
        information of the prior, prior[1] value (1 - value). Errors of pair parameters
        take all other parameters as known. Errors of the rest are joint, with the pair
        parameters projected out.
        """
        rest = [n for n in values if n not in cls.of_pairs and n not in fixed]
        sums = cls._scores(sessions, values, rest)
        errors = {name: np.zeros_like(values[name]) for name in fixed}
        joint = sums.joint
        for name in cls.of_pairs:
            value = values[name]
            information = sums.own[name][:-1] + prior[1] * value * (1 - value)
            errors[name] = logit_error(information)
            # Subtract the information that the other parameters share with this pair's.
            line = sums.cross[name][:, :-1]
            joint = joint - (line / np.maximum(information, TINY)) @ line.T
        if rest:
            value = np.concatenate([values[n].ravel() for n in rest])
            joint = joint + np.diag(prior[1] * value * (1 - value))
            # Parameters without information are excluded from the inverse.
            used = np.diag(joint) > TINY
            error = np.full(len(value), np.inf)
            inverse = np.linalg.pinv(joint[np.ix_(used, used)], hermitian=True)
            error[used] = np.sqrt(np.maximum(np.diag(inverse), 0))
            parts = np.split(error, np.cumsum([values[n].size for n in rest])[:-1])
            for name, each in zip(rest, parts, strict=True):
                errors[name] = each.reshape(values[name].shape)
        return errors

    @classmethod
    def _scores(
        cls, sessions: list[Chunk], values: dict[str, np.ndarray], rest: Sequence[str]
    ) -> Scores:
        """Sums of products of the sessions' scores."""
        size = sum(values[n].size for n in rest)
        slots = len(values["attraction"]) + 1  # the last one is for padding
        own = {n: np.zeros(slots) for n in cls.of_pairs}
        cross = {n: np.zeros((size, slots)) for n in cls.of_pairs}
        joint = np.zeros((size, size))
        for part in sessions:
            counts = cls._expect(part, values)
            # Scores of parameters that are not of pairs, (size, s).
            scores = []
            for name in rest:
                value = values[name].reshape(-1, 1, 1)
                won, tried = counts[name]
                scores.append((won - value * tried).sum(axis=1))
            score = np.concatenate(scores) if scores else np.zeros((0, 1))
            joint += score @ score.T
            # Scores of each shown pair, and their products with the others.
            for name in cls.of_pairs:
                won, tried = counts[name]
                value = np.append(values[name], 0.0)[part.pair]
                mine = won - value * tried
                _add(own[name], np.square(mine), part.pair, True)
                for line, each in zip(cross[name], score, strict=True):
                    _add(line, mine * each, part.pair, True)
        return Scores(own, cross, joint)

    def _predict(self, log: ClickLog, given: bool) -> np.ndarray:
        """P(click), given the clicks above or not; the first axis is the rank."""
        shown = np.ascontiguousarray(log.mask.T)
        own: dict[str, np.ndarray] = {}
        for name, parameter in self.parameters.items():
            if name in self.of_pairs:
                own[name] = np.ascontiguousarray(self.gather(name, log).T) * shown
            else:
                own[name] = self.broadcast(name, self._ranks(parameter, log))
        phi, tau = self.moves(own)
        a = own["attraction"]
        phi = np.broadcast_to(phi, a.shape)
        tau = np.where(shown, tau, 1.0)
        click = np.empty_like(a)
        examined = np.ones(log.sessions)
        for k in range(len(a)):
            click[k] = a[k] * examined
            # Continue to the next rank: with tau after a skip, and with phi after a
            # click.
            skip = examined * (1 - a[k]) * tau[k]
            if given:
                skip /= np.maximum(1 - click[k], TINY)
                examined = np.where(log.click[:, k], phi[k], skip)
            else:
                examined = skip + click[k] * phi[k]
        return np.ascontiguousarray(click.T)

    def _ranks(self, parameter: Parameter, log: ClickLog) -> np.ndarray:
        return parameter.value

    def conditional(self, log: ClickLog) -> np.ndarray:
        return self._predict(log, given=True)

    def marginal(self, log: ClickLog) -> np.ndarray:
        return self._predict(log, given=False)


def _add(total: np.ndarray, count: np.ndarray, pair: np.ndarray, by_pair: bool) -> None:
    """Adds counts (L, s) to their pairs, or counts (n, L, s) to n sums, in place."""
    if by_pair:
        weights = np.broadcast_to(count, pair.shape).ravel()
        total += np.bincount(pair.ravel(), weights, minlength=len(total))
    else:
        total[:-1] += count.reshape(len(total) - 1, -1).sum(axis=1)


class Cascade(Chain):
    """Cascade model: the user reads from the top and leaves after the first click.

    The attraction of an item is (clicks + prior[0]) / (impressions + prior[1]). Only
    ranks down to the first click of each session are counted. In this model, clicks
    after the first click are impossible. The fit ignores clicks after the first click,
    and evaluation gives them the smallest allowed probability. Source: Craswell et al.,
    An Experimental Comparison of Click Position-Bias Models, WSDM 2008.

    >>> log = ClickLog([0, 0], [[4, 2], [2, 4]], [[1, 0], [0, 1]])
    >>> Cascade.fit(log).value("attraction").tolist()  # item 2: 0 of 1, item 4: 2 of 2
    [0.3333333333333333, 0.75]
    """

    name = "cascade"

    @classmethod
    def fit(cls, log: ClickLog, prior: Prior = PRIOR) -> Self:
        check(1, prior)
        known = pairs(log)
        pair = known.index(log)
        # Cells without a click above are examined.
        above = np.cumsum(log.click, axis=1) - log.click
        read = log.mask & (above == 0)
        shown = np.bincount(pair[read], minlength=len(known))
        clicked = np.bincount(pair[read & log.click], minlength=len(known))
        return cls(known, {"attraction": smoothed(clicked, shown, prior)})

    @classmethod
    def moves(cls, values: Values) -> Moves:
        return np.zeros_like(values["attraction"]), 1.0

    @classmethod
    def expect(cls, part: Chunk, values: Values, hidden: Hidden) -> Counts:
        return {}


class DependentClick(Chain):
    """Dependent click model (DCM): P(continue | click at rank k) = lambda_k.

    The parameter "continuation" (L,) is lambda. A log contains no information about
    lambda at the last rank.

    >>> log = ClickLog([0, 0], [[4, 2], [2, 4]], [[1, 0], [1, 1]])
    >>> DependentClick.fit(log).value("continuation").shape
    (2,)
    """

    name = "dcm"

    @classmethod
    def fit(cls, log: ClickLog, iterations: int = 40, prior: Prior = PRIOR) -> Self:
        others = {"continuation": np.full(log.list_size, 0.5)}
        return cls._estimate(log, others, iterations, prior)

    @classmethod
    def broadcast(cls, name: str, value: np.ndarray) -> np.ndarray:
        return value[:, None]

    def _ranks(self, parameter: Parameter, log: ClickLog) -> np.ndarray:
        return at_ranks(parameter.value, log.list_size)

    @classmethod
    def moves(cls, values: Values) -> Moves:
        return values["continuation"], 1.0

    @classmethod
    def expect(cls, part: Chunk, values: Values, hidden: Hidden) -> Counts:
        after = part.click & part.more
        return {
            "continuation": (after[:, None] * _next(hidden)[:, None], after[:, None])
        }


class ClickChain(Chain):
    """Click chain model (CCM): a click satisfies with probability a_i (attraction).

    The parameter "continuation" (3,) holds the probabilities of continuing: t1 without
    a click, t2 after a click that did not satisfy, and t3 after a click that satisfied.
    Given examination, clicking and being satisfied are independent events, each with
    probability a_i.

    >>> log = ClickLog([0, 0], [[4, 2], [2, 4]], [[1, 0], [1, 1]])
    >>> ClickChain.fit(log).value("continuation").shape
    (3,)
    """

    name = "ccm"

    @classmethod
    def fit(cls, log: ClickLog, iterations: int = 40, prior: Prior = PRIOR) -> Self:
        return cls._estimate(log, {"continuation": np.full(3, 0.5)}, iterations, prior)

    @classmethod
    def moves(cls, values: Values) -> Moves:
        t1, t2, t3 = values["continuation"]
        return t2 + (t3 - t2) * values["attraction"], t1

    @classmethod
    def expect(cls, part: Chunk, values: Values, hidden: Hidden) -> Counts:
        _, t2, t3 = values["continuation"]
        a, ahead = values["attraction"], hidden.ahead
        # After a click that is not the last, the user continued. After the last click,
        # no click follows. In both cases: P(satisfied, what followed) / P(what
        # followed).
        final, click = part.final, part.click
        phi = np.maximum(t2 + (t3 - t2) * a, TINY)
        total = np.where(final, np.maximum(hidden.end, TINY), phi)
        on = np.where(final, ahead, 1.0)
        went3, went2 = click * a * t3 * on / total, click * (1 - a) * t2 * on / total
        pleased = went3 + np.where(final, a * (1 - t3) / total, 0.0)
        liked = click + ~click * (1 - hidden.examined) * a + pleased
        more, skip = part.more, part.more & ~click
        continuation = (
            np.stack([skip * _next(hidden), more * went2, more * went3]),
            np.stack(
                [skip * hidden.examined, more * (click - pleased), more * pleased]
            ),
        )
        tried = part.shown + click.astype(float)
        return {"attraction": (liked, tried), "continuation": continuation}


class DynamicBayesian(Chain):
    """Dynamic Bayesian network (DBN): a click satisfies with probability s_i.

    A satisfied reader leaves. The parameter "satisfaction" (P,) holds s_i for each
    pair. The parameter "continuation", a scalar, is gamma, the probability that an
    unsatisfied reader continues.

    >>> log = ClickLog([0, 0], [[4, 2], [2, 4]], [[1, 0], [1, 1]])
    >>> float(DynamicBayesian.fit(log, continuation=0.9).value("continuation"))
    0.9
    """

    name = "dbn"
    of_pairs = ("attraction", "satisfaction")

    @classmethod
    def fit(
        cls,
        log: ClickLog,
        iterations: int = 40,
        prior: Prior = PRIOR,
        continuation: float | None = None,
    ) -> Self:
        """Estimates the model; a `continuation` that is not None is held fixed."""
        fixed = () if continuation is None else ("continuation",)
        start = 0.5 if continuation is None else float(continuation)
        if not 0 <= start <= 1:
            raise ValueError(f"continuation must be in [0, 1], got {continuation}")
        others = {"continuation": np.array(start)}
        return cls._estimate(log, others, iterations, prior, fixed)

    @classmethod
    def moves(cls, values: Values) -> Moves:
        gamma = values["continuation"]
        return gamma * (1 - values["satisfaction"]), gamma

    @classmethod
    def expect(cls, part: Chunk, values: Values, hidden: Hidden) -> Counts:
        pleased = part.final * values["satisfaction"] / np.maximum(hidden.end, TINY)
        trials = part.more * (hidden.examined - pleased)
        return {
            "satisfaction": (pleased, part.click),
            "continuation": ((part.more * _next(hidden))[None], trials[None]),
        }


class SimplifiedDBN(DynamicBayesian):
    """Simplified DBN (SDBN): an unsatisfied user always continues.

    SDBN is the DBN with continuation fixed at 1, fitted by EM. Some authors call a
    closed form SDBN. The closed form treats the last click of every session as
    satisfying, although the reader may have read on without a click.

    >>> log = ClickLog([0, 0], [[4, 2], [2, 4]], [[1, 0], [1, 1]])
    >>> float(SimplifiedDBN.fit(log).value("continuation"))
    1.0
    """

    name = "sdbn"

    @classmethod
    def fit(
        cls,
        log: ClickLog,
        iterations: int = 40,
        prior: Prior = PRIOR,
        continuation: float | None = 1.0,
    ) -> Self:
        return super().fit(log, iterations, prior, continuation)


def _next(hidden: Hidden) -> np.ndarray:
    """P(the rank below is examined | all clicks), 0 at the last rank."""
    below = np.zeros_like(hidden.examined)
    below[:-1] = hidden.examined[1:]
    return below
