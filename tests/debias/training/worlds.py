"""A small log, in memory and on disk, that tests of training share."""

import numpy as np
import pytest

from debias.data import ClickLog, RankingData, Stream, log_files
from debias.data.layout import layout_of
from debias.training import Learners, Part, Prepared, held_out, shown_only, standardized
from simulators import PlackettLuce, generate, simulate, weak_ranker

DATA = generate(queries=60, seed=2)
POLICY = PlackettLuce(weak_ranker(DATA), 1.0)
LOG = simulate(DATA, POLICY, "pbm", sessions=900, seed=1, list_size=4).select()
SHOWN, FEATURES = shown_only(LOG, DATA)


def prepared(learners=None, log=SHOWN, features=FEATURES) -> Prepared:
    """The log held out and scaled; other learners may stand in for its own."""
    layer, scaled = standardized(features)
    (train, validation, test), by = held_out(log, seed=0)
    return Prepared(
        Learners(train if learners is None else learners, scaled),
        Part(validation, scaled),
        Part(test, scaled),
        by,
        layout_of(log),
        layer,
    )


def written(folder) -> Stream:
    """The log in row groups of 40 sessions, of which a window takes eight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "ROW_GROUP", 40)
        SHOWN.write(folder, shards=3)
    return Stream(folder, window=300)


def stepped() -> tuple[ClickLog, RankingData]:
    """Position-based clicks on items that attract in a band of one feature.

    A few trees learn it; a tower does not in a single pass.
    """
    rng = np.random.default_rng(3)
    features = rng.normal(size=(120 * 8, 4)).astype(np.float32)
    attraction = np.where(np.abs(features[:, 0]) < 0.6, 0.9, 0.1)
    query = rng.integers(0, 120, 4_000)
    item = rng.permuted(np.tile(np.arange(8), (len(query), 1)), axis=1)[:, :4]
    item = item + 8 * query[:, None]
    examination = np.array([1.0, 0.7, 0.5, 0.3])
    click = rng.random(item.shape) < examination * attraction[item]
    data = RankingData(features, 4 * (attraction > 0.5), np.arange(0, 961, 8))
    return ClickLog(query, item, click), data
