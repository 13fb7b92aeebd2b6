"""The gain of cross-position attention, by layout.

Protocol, fixed before any result was seen:

1. Each small world has 10,000 sessions that the production ranker logged. The
   populations are layouts. `list` is one column of ten items. `2x5`, `5x2` and `3x4`
   are grids, named by their numbers of rows and columns. An attractive cell of a grid
   draws attention from its neighbours, most of all from neighbours in the same row.
   `carousel` has two rows of five items that users swipe independently, and no cell
   draws attention from another.
2. The models are trained with the defaults of `debias.fit`, except for batches of 128
   sessions. `xpa_own` is XPA without attention to neighbours. `xpa_places` reads the
   positions of neighbours, `xpa_relevance` reads their relevance, and `xpa` reads
   position and relevance. The attention weights of these models depend only on the
   layout. The attention weights of `xpa_items` also depend on the relevance of both
   items. Queries and keys of `xpa_items` have half the size, so `xpa_items` has 272
   attention parameters, compared with 288 in `xpa`. `production` is the production
   ranker itself.
3. The metrics on the test queries are NDCG@5 with true grades and the exact expected
   number of clicks. The click likelihood is measured on 10,000 test sessions.
   `attention_correlation` is Spearman's correlation of attention with the true
   influence of cells on each other, in one test session.
4. The seeds are 100 to 109. The baseline is `xpa_own`. Holm's correction covers all
   differences of the table.
"""

from typing import TYPE_CHECKING

from benchmarks.harness.plan import Table
from benchmarks.questions.trials import LOGGING, OnCrowd

if TYPE_CHECKING:
    from simulators.populations import Population

SESSIONS = 10_000
SIZES = {"list": 10, "2x5": 10, "5x2": 10, "3x4": 12, "carousel": 10}
ROWS = (
    *("softmax_naive", "additive", "xpa_own", "xpa_places"),
    *("xpa_relevance", "xpa", "xpa_items"),
)


def crowd(name: str) -> "Population":
    """The population of the layout with this name."""
    from simulators.behaviours import Carousel, Grid
    from simulators.populations import Population

    reader = {
        "list": Grid(columns=1, slower=1.0, skip=0.0, across=1.0),
        "2x5": Grid(columns=5),
        "5x2": Grid(columns=2),
        "3x4": Grid(columns=4),
        "carousel": Carousel(columns=5),
    }[name]
    return Population(((1.0, reader),))


TABLE = Table(
    name="layouts",
    title="Gain from attention to neighbours, by layout",
    experiments=tuple(
        OnCrowd(row, name, crowd, SESSIONS, size)
        for name, size in SIZES.items()
        for row in (*ROWS, LOGGING)
    ),
    metrics=(
        *("ndcg@5", "expected_clicks", "click_log_likelihood"),
        "attention_correlation",
    ),
    baseline="xpa_own",
    paired=("ndcg@5", "expected_clicks", "click_log_likelihood"),
    clicks="click_log_likelihood",
    bounds=(LOGGING,),
    first_seed=100,
    holm=True,
)
