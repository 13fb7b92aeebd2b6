"""Classic click models by vectorised EM, with one interface.

`MODELS[name].fit(log)` returns a frozen model. It predicts clicks with and without the
clicks above (`conditional`, `marginal`) and evaluates itself on a log
(`log_likelihood`, `perplexity`). A class has the same name as the behaviour in
`simulators` that clicks by this model.

The defaults are the settings of published perplexities of PBM, UBM and the baselines.
EM makes 40 passes from .5 and updates all parameters at once, each to (expected
successes + 1) / (expected trials + 2). Parameters without data stay at .5. Perplexity
is 2^(-mean log2 P) at each rank given the clicks above; its mean over ranks is the
score:

    UserBrowsing.fit(train).perplexity(test).mean()

The tests cover every class in `MODELS`.
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
