"""Click simulation with known truth: queries, policies, populations, click logs.

>>> import simulators
>>> data = simulators.generate(queries=20, seed=1)
>>> policy = simulators.PlackettLuce(simulators.weak_ranker(data), temperature=0.5)
>>> log = simulators.simulate(data, policy, "mixed", sessions=1000, seed=2)
>>> log.sessions, log.list_size
(1000, 10)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the lazy attributes below resolve to these
    from simulators.behaviours import BEHAVIOURS as BEHAVIOURS
    from simulators.behaviours import Behaviour as Behaviour
    from simulators.behaviours import BottomUp as BottomUp
    from simulators.behaviours import Carousel as Carousel
    from simulators.behaviours import Cascade as Cascade
    from simulators.behaviours import ClickChain as ClickChain
    from simulators.behaviours import DependentClick as DependentClick
    from simulators.behaviours import DocumentCTR as DocumentCTR
    from simulators.behaviours import DynamicBayesian as DynamicBayesian
    from simulators.behaviours import Grid as Grid
    from simulators.behaviours import LogitAdditive as LogitAdditive
    from simulators.behaviours import PositionBased as PositionBased
    from simulators.behaviours import RankCTR as RankCTR
    from simulators.behaviours import TrustBiased as TrustBiased
    from simulators.behaviours import UserBrowsing as UserBrowsing
    from simulators.behaviours import eye_tracking as eye_tracking
    from simulators.behaviours import power_law as power_law
    from simulators.behaviours import simplified_dbn as simplified_dbn
    from simulators.behaviours import trust_oosterhuis as trust_oosterhuis
    from simulators.behaviours import trust_vardasbi as trust_vardasbi
    from simulators.behaviours import user_browsing as user_browsing
    from simulators.clicks import ATTRACTIONS as ATTRACTIONS
    from simulators.clicks import SATISFACTIONS as SATISFACTIONS
    from simulators.clicks import item_attraction as item_attraction
    from simulators.clicks import item_satisfaction as item_satisfaction
    from simulators.clicks import prepare as prepare
    from simulators.clicks import simulate as simulate
    from simulators.interleaving import interleave as interleave
    from simulators.interleaving import sessions_needed as sessions_needed
    from simulators.interleaving import team_draft as team_draft
    from simulators.oracle import expected_clicks as expected_clicks
    from simulators.policies import Deterministic as Deterministic
    from simulators.policies import EpsilonGreedy as EpsilonGreedy
    from simulators.policies import Interleaved as Interleaved
    from simulators.policies import PlackettLuce as PlackettLuce
    from simulators.policies import RandPair as RandPair
    from simulators.policies import RandTopN as RandTopN
    from simulators.policies import expert as expert
    from simulators.policies import weak_ranker as weak_ranker
    from simulators.policies import worst_first as worst_first
    from simulators.populations import POPULATIONS as POPULATIONS
    from simulators.populations import Population as Population
    from simulators.populations import Situation as Situation
    from simulators.populations import by_device as by_device
    from simulators.populations import by_query as by_query
    from simulators.populations import logistic_share as logistic_share
    from simulators.populations import named as named
    from simulators.presentation import with_badge as with_badge
    from simulators.queries import generate as generate
    from simulators.targets import with_dwell as with_dwell
    from simulators.targets import with_orders as with_orders

_HOME = {
    "behaviours": "BEHAVIOURS Behaviour BottomUp Carousel Cascade ClickChain "
    "DependentClick DocumentCTR DynamicBayesian Grid LogitAdditive PositionBased "
    "RankCTR TrustBiased UserBrowsing eye_tracking power_law simplified_dbn "
    "trust_oosterhuis trust_vardasbi user_browsing",
    "clicks": "ATTRACTIONS SATISFACTIONS item_attraction item_satisfaction prepare "
    "simulate",
    "interleaving": "interleave sessions_needed team_draft",
    "oracle": "expected_clicks",
    "policies": "Deterministic EpsilonGreedy Interleaved PlackettLuce RandPair "
    "RandTopN expert weak_ranker worst_first",
    "populations": "POPULATIONS Population Situation by_device by_query logistic_share "
    "named",
    "presentation": "with_badge",
    "queries": "generate",
    "targets": "with_dwell with_orders",
}
_MODULE_OF = {name: home for home, names in _HOME.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
