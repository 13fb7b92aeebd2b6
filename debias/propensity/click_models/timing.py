"""One EM pass of each click model, for timing."""

from collections.abc import Callable
from typing import Any

import numpy as np

from debias.data import ClickLog
from debias.data.text import one_of
from debias.propensity.cells import cells, pairs
from debias.propensity.click_models.chain import (
    Chain,
    ClickChain,
    DependentClick,
    DynamicBayesian,
    SimplifiedDBN,
    lay_out,
)
from debias.propensity.click_models.factored import PRIOR, ubm_cells
from debias.propensity.pbm_maximum import pbm_step

CHAINS: dict[str, type[Chain]] = {
    model.name: model
    for model in (DependentClick, ClickChain, DynamicBayesian, SimplifiedDBN)
}


def prepared_pass(log: ClickLog, name: str) -> Callable[[], Any]:
    """Prepares a log, and returns a function that runs one EM pass over it.

    Args:
        log: The log.
        name: Name of the model, "pbm", "ubm", "dcm", "ccm", "dbn" or "sdbn".

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
    if name not in CHAINS:
        raise ValueError(one_of("name", ["pbm", "ubm", *CHAINS], name))
    model, sessions = CHAINS[name], lay_out(log, known)
    values = {n: np.full(len(known), 0.5) for n in model.of_pairs}
    size = {"dcm": (log.list_size,), "ccm": (3,)}.get(name, ())
    values["continuation"] = np.full(size, 0.5)
    return lambda: model.renew(sessions, values, PRIOR)
