"""Classic click models by vectorised EM, with one interface.

`MODELS[name].fit(log)` returns a fitted, immutable model. The model predicts clicks,
either given the clicks above (`conditional`) or without them (`marginal`). The methods
`log_likelihood` and `perplexity` evaluate the model on a log. Each class has the same
name as the behaviour in `simulators` that generates clicks by this model.

The default settings reproduce published perplexities of PBM, UBM and two models of
click rates. EM makes 40 passes and starts with all parameters at .5. A pass updates all
parameters at once, each to (expected successes + 1) / (expected trials + 2). Parameters
without data stay at .5. The perplexity at a rank is 2^(-mean log2 P), where P is the
predicted probability of what was observed, a click or no click. P is conditional on the
session's clicks above the rank. The score of a model is its mean perplexity over ranks:

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
