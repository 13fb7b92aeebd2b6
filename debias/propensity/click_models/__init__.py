"""Classic click models by vectorised EM, with one interface.

`MODELS[name].fit(log)` returns a frozen model that predicts clicks with and without
those above (`conditional`, `marginal`) and scores itself on a log (`log_likelihood`,
`perplexity`). Their classes bear the names of the behaviours in `simulators` that click
as they say.

The defaults are the settings under which perplexities of PBM, UBM and the baselines are
published. EM makes 40 passes from .5 and renews all parameters at once, each to
(expected successes + 1) / (expected trials + 2). What the fit never saw stays at .5.
Perplexity is 2^(-mean log2 P) at each rank given the clicks above, and its mean over
ranks the score:

    UserBrowsing.fit(train).perplexity(test).mean()

Entering a class in `MODELS` brings it to the tests.
"""

from debias.propensity.click_models.base import ClickModel, Parameter
from debias.propensity.click_models.chain import (
    Cascade,
    ClickChain,
    DependentClick,
    DynamicBayesian,
    SimplifiedDBN,
)
from debias.propensity.click_models.factored import (
    DocumentCTR,
    GlobalCTR,
    PositionBased,
    RankCTR,
    UserBrowsing,
)

MODELS: dict[str, type[ClickModel]] = {
    model.name: model
    for model in (
        GlobalCTR,
        RankCTR,
        DocumentCTR,
        PositionBased,
        UserBrowsing,
        Cascade,
        DependentClick,
        ClickChain,
        DynamicBayesian,
        SimplifiedDBN,
    )
}

__all__ = [
    "MODELS",
    "Cascade",
    "ClickChain",
    "ClickModel",
    "DependentClick",
    "DocumentCTR",
    "DynamicBayesian",
    "GlobalCTR",
    "Parameter",
    "PositionBased",
    "RankCTR",
    "SimplifiedDBN",
    "UserBrowsing",
]
