"""Behaviours: simulated kinds of users, with exact click probabilities.

A list is a row of attractions in display order. The attraction of an item is the
probability that the average user clicks the item after examining it. A behaviour reads
(S, L) lists and computes, exactly and in closed form:

    perceive(attraction)            P(click at k | examined at k, this user)
    examination(attraction, click)  P(examined at k | clicks made before reading k)
    conditional_click_probability   P(c_k | c_1 .. c_{k-1}); multiplies to P(c)
    click_probability(attraction)   P(c_k), the marginal
    sample(attraction, rng)         random clicks, and examination(attraction, clicks)

P(c_k | clicks made before) = examination * perceive in every cell. Lists have no
padding: `simulators.clicks` calls a behaviour on lists of equal length. Computation
uses the float type of the attraction.

Items may have their own satisfaction P(satisfied | clicked), an array of the same
shape. So an item can attract every user and satisfy no user. Only behaviours with
`satisfiable = True` receive the satisfaction.

To add a behaviour, write a frozen dataclass and add an instance to `BEHAVIOURS`. Derive
the class from `Independent` if clicks do not affect examination, and from `Chain` if
users either continue to the next rank or leave. Tests and tables then include the new
behaviour.
"""

from simulators.behaviours.base import (
    BAIDU,
    EYE_TRACKING,
    Behaviour,
    Curve,
    Knots,
    eye_tracking,
    power_law,
    with_satisfaction,
)
from simulators.behaviours.bottom_up import BottomUp
from simulators.behaviours.browsing import (
    UserBrowsing,
    user_browsing,
)
from simulators.behaviours.chain import (
    GRADED_DBN,
    INFORMATIONAL,
    NAVIGATIONAL,
    Carousel,
    Cascade,
    Chain,
    ClickChain,
    DependentClick,
    DynamicBayesian,
    simplified_dbn,
)
from simulators.behaviours.grid import Grid
from simulators.behaviours.independent import (
    DocumentCTR,
    Independent,
    PositionBased,
    RankCTR,
    TrustBiased,
    trust_oosterhuis,
    trust_vardasbi,
)
from simulators.behaviours.logit import LogitAdditive

__all__ = [
    "BAIDU",
    "BEHAVIOURS",
    "EYE_TRACKING",
    "GRADED_DBN",
    "INFORMATIONAL",
    "NAVIGATIONAL",
    "Behaviour",
    "BottomUp",
    "Carousel",
    "Cascade",
    "Chain",
    "ClickChain",
    "Curve",
    "DependentClick",
    "DocumentCTR",
    "DynamicBayesian",
    "Grid",
    "Independent",
    "Knots",
    "LogitAdditive",
    "PositionBased",
    "RankCTR",
    "TrustBiased",
    "UserBrowsing",
    "eye_tracking",
    "power_law",
    "simplified_dbn",
    "trust_oosterhuis",
    "trust_vardasbi",
    "user_browsing",
    "with_satisfaction",
]

BEHAVIOURS: dict[str, Behaviour] = {
    "position-based": PositionBased(),
    "position-based-picky": PositionBased(power_law(1.0), pickiness=3.0),
    "position-based-baidu": PositionBased(BAIDU),
    "rank-ctr": RankCTR(),
    "document-ctr": DocumentCTR(),
    "trust-oosterhuis": trust_oosterhuis(),
    "trust-vardasbi": trust_vardasbi(),
    "cascade": Cascade(),
    "dcm": DependentClick(),
    "ccm": ClickChain(),
    "dbn": DynamicBayesian(),
    "sdbn": simplified_dbn(),
    "dbn-navigational": DynamicBayesian(1.0, NAVIGATIONAL),
    "dbn-informational": DynamicBayesian(1.0, INFORMATIONAL),
    "dbn-graded": DynamicBayesian(0.8, GRADED_DBN),
    "ubm": user_browsing(),
    "logit-additive": LogitAdditive(),
    "bottom-up": BottomUp(DynamicBayesian(0.7)),
    "bottom-up-cascade": BottomUp(Cascade()),
    "grid": Grid(),
    "grid-no-skipping": Grid(skip=0.0),
    "carousel": Carousel(),
}
"""One instance of every behaviour; the tests cover all entries."""
