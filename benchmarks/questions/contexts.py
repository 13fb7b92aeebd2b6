"""Compares how models combine relevance and bias if bias differs by device.

Protocol, fixed before any result was seen:

1. Each small world has 10,000 sessions that the production ranker logged, 60% on a
   phone and 40% on a desktop. The populations differ in how users behave on each
   device:

   | population | phone | desktop |
   |---|---|---|
   | `alike` | position-based | position-based |
   | `scaled` | position-based | position-based, half the examination at each rank |
   | `depths` | position-based, examination 1 / k^1.5 | examination 1 / k^.5 |
   | `trusting` | trust bias: clicks top items without examining them | position-based |
   | `odds` | rank k scales click odds by 1 / k^1.5 | rank k scales click odds by 1 /
   k^.5 |

2. The models are trained with the defaults of `debias.fit`, except for batches of 128
   sessions. `product_position` does not read the device. `product` adds a bias of the
   device to the bias of the position. `product_crossed` has a bias for each pair of
   device and position. `additive` and `additive_crossed` are additive models with the
   biases of `product` and `product_crossed`. `trust` learns trust and examination.
   `bilinear`, `mixture` and `listwise` are the rows with these names in the ranking
   tables. `production` is the production ranker itself.
3. The metrics on the test queries are NDCG@5 with true grades and the exact expected
   number of clicks. The click likelihood is measured on 10,000 test sessions.
4. The seeds are 100 to 109. The baseline is `softmax_naive`. Holm's correction covers
   all differences of the table.
"""

from typing import TYPE_CHECKING

from benchmarks.harness.plan import Table
from benchmarks.questions.trials import LOGGING, OnCrowd

if TYPE_CHECKING:
    from simulators.behaviours import Behaviour
    from simulators.populations import Population

SESSIONS = 10_000
PHONE, DESKTOP = 1, 2
CROWDS = ("alike", "scaled", "depths", "trusting", "odds")
ROWS = (
    *("softmax_naive", "listwise", "product_position", "product", "product_crossed"),
    *("trust", "additive", "additive_crossed", "bilinear", "mixture"),
)


def users(name: str) -> "tuple[Behaviour, Behaviour]":
    """Behaviours on a phone and on a desktop."""
    from simulators.behaviours import (
        EYE_TRACKING,
        LogitAdditive,
        PositionBased,
        power_law,
        trust_oosterhuis,
    )

    steep, flat = power_law(1.5), power_law(0.5)
    half = tuple(theta / 2 for theta in EYE_TRACKING)
    return {
        "alike": (PositionBased(), PositionBased()),
        "scaled": (PositionBased(), PositionBased(half)),
        "depths": (PositionBased(steep), PositionBased(flat)),
        "trusting": (trust_oosterhuis(), PositionBased()),
        "odds": (LogitAdditive(steep), LogitAdditive(flat)),
    }[name]


def crowd(name: str) -> "Population":
    """The population with this name, with users on phones and desktops."""
    from simulators.populations import Population, Situation, by_device

    phone, desktop = users(name)
    return Population(
        by_device(1.0, {PHONE: phone, DESKTOP: desktop}),
        (Situation(0.6, device=PHONE), Situation(0.4, device=DESKTOP)),
    )


TABLE = Table(
    name="contexts",
    title="Bias that differs by device, by how models combine it with relevance",
    experiments=tuple(
        OnCrowd(row, name, crowd, SESSIONS)
        for name in CROWDS
        for row in (*ROWS, LOGGING)
    ),
    metrics=("ndcg@5", "ndcg@10", "expected_clicks", "click_log_likelihood"),
    baseline="softmax_naive",
    paired=("ndcg@5", "expected_clicks", "click_log_likelihood"),
    clicks="click_log_likelihood",
    bounds=(LOGGING,),
    first_seed=100,
    holm=True,
)
