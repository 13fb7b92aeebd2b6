"""Classic click models by vectorised EM, with one interface.

`MODELS[name].fit(log)` returns a frozen model that predicts clicks with and without
those above (`conditional`, `marginal`) and scores itself on a log (`log_likelihood`,
`perplexity`). Entering a class in `MODELS` brings it to the tests.
"""

from debias.propensity.click_models.base import ClickModel, Parameter
from debias.propensity.click_models.chain import CCM, DBN, DCM, SDBN, Cascade
from debias.propensity.click_models.factored import (
    PBM,
    UBM,
    DocumentCTR,
    GlobalCTR,
    RankCTR,
)

MODELS: dict[str, type[ClickModel]] = {
    model.name: model
    for model in (
        GlobalCTR,
        RankCTR,
        DocumentCTR,
        PBM,
        UBM,
        Cascade,
        DCM,
        CCM,
        DBN,
        SDBN,
    )
}

__all__ = [
    "CCM",
    "DBN",
    "DCM",
    "MODELS",
    "PBM",
    "SDBN",
    "UBM",
    "Cascade",
    "ClickModel",
    "DocumentCTR",
    "GlobalCTR",
    "Parameter",
    "RankCTR",
]
