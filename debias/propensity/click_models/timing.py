"""One EM pass of each click model as a function to time."""

from collections.abc import Callable
from typing import Any

import numpy as np

from debias.data import ClickLog
from debias.propensity.cells import cells, pairs
from debias.propensity.click_models.chain import CCM, DBN, DCM, SDBN, Chain, lay_out
from debias.propensity.click_models.factored import PRIOR, ubm_cells
from debias.propensity.pbm_maximum import pbm_step

CHAINS: dict[str, type[Chain]] = {m.name: m for m in (DCM, CCM, DBN, SDBN)}


def prepared_pass(log: ClickLog, name: str) -> Callable[[], Any]:
    """A pass over a log that is already counted or laid out, as EM repeats it.

    Args:
        log: The log.
        name: "pbm", "ubm", "dcm", "ccm", "dbn" or "sdbn", or "plain pbm" for the
            position-based model without collapsing equal cells.

    >>> log = ClickLog([0, 0], [[4, 2], [2, 4]], [[0, 1], [1, 0]])
    >>> gamma, theta = prepared_pass(log, "pbm")()
    >>> gamma.shape, theta.shape
    ((2,), (2,))
    """
    known = pairs(log)
    if name in ("pbm", "ubm"):
        counted = cells(log) if name == "pbm" else ubm_cells(log, known)
        gamma, theta = np.full(counted.pairs, 0.5), np.full(counted.ranks, 0.5)
        return lambda: pbm_step(counted, gamma, theta, PRIOR)
    if name == "plain pbm":
        return _plain(log)
    if name not in CHAINS:
        names = ["pbm", "ubm", "plain pbm", *CHAINS]
        raise ValueError(f"name must be one of {names}, got {name!r}")
    model, sessions = CHAINS[name], lay_out(log, known)
    values = {n: np.full(len(known), 0.5) for n in model.of_pairs}
    size = {"dcm": (log.list_size,), "ccm": (3,)}.get(name, ())
    values["continuation"] = np.full(size, 0.5)
    return lambda: model.renew(sessions, values, PRIOR)


def _plain(log: ClickLog) -> Callable[[], Any]:
    """The textbook pass: every impression of every session, in plain NumPy."""
    known = pairs(log)
    pair, click = known.index(log), log.click.astype(float)
    flat, size = pair.ravel(), len(known) + 1
    shown = np.bincount(flat, minlength=size)
    gamma, theta = np.full(size, 0.5), np.full(log.list_size, 0.5)

    def step() -> tuple[np.ndarray, np.ndarray]:
        g = gamma[pair]
        rest = (1 - click) / (1 - g * theta)
        liked = click + rest * g * (1 - theta)
        seen = click + rest * theta * (1 - g)
        total = np.bincount(flat, liked.ravel(), minlength=size)
        rate = (seen.sum(axis=0) + PRIOR[0]) / (log.sessions + PRIOR[1])
        return (total + PRIOR[0]) / (shown + PRIOR[1]), rate

    return step
