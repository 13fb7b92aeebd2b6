"""Table of the models for the command line, `select` and the benchmarks.

Importing this module does not load TensorFlow. To add a model, write its class, write
its builder in `debias.models.builders`, and add a line to `PRESETS`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from debias.data.layout import Layout
    from debias.models.click_model import ClickModel
    from debias.models.trees import Library, Objective


class Preset(NamedTuple):
    """A named model with all its settings.

    Attributes:
        about: One-line description.
        path: Import path of the function that builds the model.
        predicts_clicks: Whether the model outputs click logits. Models without click
            logits can only rank. Their likelihoods are comparable only among
            themselves.
    """

    about: str
    path: str
    predicts_clicks: bool = True

    def build(self, layout: "Layout", seed: int) -> "ClickModel":
        """Builds a new model for a layout; `seed` sets its initial weights."""
        module, _, name = self.path.rpartition(".")
        model: ClickModel = getattr(import_module(module), name)(layout, seed)
        return model


_BUILDERS = "debias.models.builders"

PRESETS: Mapping[str, Preset] = {
    "naive": Preset("relevance alone; position is ignored", f"{_BUILDERS}.naive"),
    "additive": Preset(
        "relevance logit + bias logit, bias dropout .1", f"{_BUILDERS}.additive"
    ),
    "product": Preset(
        "P(click) = P(examined) P(attracted), position-based model (PAL)",
        f"{_BUILDERS}.product",
    ),
    "trust": Preset(
        "product with clicks on unattractive items at trusted ranks (trust bias)",
        f"{_BUILDERS}.trust",
    ),
    "product_linear": Preset(
        "the product with relevance linear in the features, for few queries",
        f"{_BUILDERS}.product_linear",
    ),
    "product_three": Preset(
        "three product models, averaged", f"{_BUILDERS}.product_three"
    ),
    "position_feature": Preset(
        "position is a feature in training and fixed in serving",
        f"{_BUILDERS}.position_feature",
    ),
    "dot": Preset(
        "dot product of a relevance and a bias embedding", f"{_BUILDERS}.dot"
    ),
    "bilinear": Preset(
        "bilinear form of a relevance and a bias embedding", f"{_BUILDERS}.bilinear"
    ),
    "mixture": Preset(
        "three product models for three kinds of users (Mix-EM)",
        f"{_BUILDERS}.mixture",
    ),
    "xpa": Preset(
        "cross-position attention: neighbours change click probabilities (XPA)",
        f"{_BUILDERS}.xpa",
    ),
    "multi_target": Preset(
        "clicks, and the targets of the log by conversion (after ESMM)",
        f"{_BUILDERS}.multi_target",
    ),
    "softmax_naive": Preset(
        "softmax over the list of relevance alone; clicks are taken for relevance",
        f"{_BUILDERS}.softmax_naive",
        predicts_clicks=False,
    ),
    "listwise": Preset(
        "softmax over the list of relevance + bias",
        f"{_BUILDERS}.listwise",
        predicts_clicks=False,
    ),
    "listwise_linear": Preset(
        "listwise with relevance linear in the features, for few queries",
        f"{_BUILDERS}.listwise_linear",
        predicts_clicks=False,
    ),
    "listwise_three": Preset(
        "three listwise models, averaged",
        f"{_BUILDERS}.listwise_three",
        predicts_clicks=False,
    ),
    "listwise_mixture": Preset(
        "three listwise models for three kinds of users",
        f"{_BUILDERS}.listwise_mixture",
        predicts_clicks=False,
    ),
    "listwise_xpa": Preset(
        "cross-position attention with the softmax over the list",
        f"{_BUILDERS}.listwise_xpa",
        predicts_clicks=False,
    ),
}
"""Models by name, in order of increasing complexity."""

_CORRECTIONS = "debias.models.corrections"


class Correction(NamedTuple):
    """A named ranker trained on corrected clicks.

    Attributes:
        about: One-line description.
        path: Import path of the function that builds the model.
        needs: Quantities that the correction needs: "examination", "trust".
    """

    about: str
    path: str
    needs: tuple[str, ...] = ()


_LISTWISE = "; softmax over the list"
_IPS = "clicks divided by the examination of their rank (inverse propensity)"
_AFFINE = "clicks minus the trust in their rank, divided by its examination"
_ROBUST = "a direct model plus its residuals divided by examination"
CORRECTIONS: Mapping[str, Correction] = {
    "ips": Correction(_IPS, f"{_CORRECTIONS}.ips", ("examination",)),
    "ips_listwise": Correction(
        _IPS + _LISTWISE, f"{_CORRECTIONS}.ips_listwise", ("examination",)
    ),
    "affine": Correction(_AFFINE, f"{_CORRECTIONS}.affine", ("examination", "trust")),
    "affine_listwise": Correction(
        _AFFINE + _LISTWISE,
        f"{_CORRECTIONS}.affine_listwise",
        ("examination", "trust"),
    ),
    "doubly_robust": Correction(
        _ROBUST, f"{_CORRECTIONS}.doubly_robust", ("examination",)
    ),
    "doubly_robust_listwise": Correction(
        _ROBUST + _LISTWISE,
        f"{_CORRECTIONS}.doubly_robust_listwise",
        ("examination",),
    ),
    "regression_em": Correction(
        "examination and relevance by EM", f"{_CORRECTIONS}.regression_em"
    ),
    "dual_learning": Correction(
        "ranker and bias tower weigh each other's clicks",
        f"{_CORRECTIONS}.dual_learning",
    ),
    "pair_debias": Correction(
        "pairs of click and skip over ratios of their ranks",
        f"{_CORRECTIONS}.pair_debias",
    ),
}
"""Corrections by name; `debias.training.correction` builds them."""


class TreePreset(NamedTuple):
    """A named ranker of boosted trees.

    Attributes:
        about: One-line description.
        library: See `debias.models.trees.TreesConfig`.
        objective: See `debias.training.fit_trees`.
    """

    about: str
    library: "Library" = "lightgbm"
    objective: "Objective" = "product"


_BOOSTED = "boosted trees for relevance, by"
TREES: Mapping[str, TreePreset] = {
    "trees": TreePreset(f"the product model with {_BOOSTED} LightGBM"),
    "trees_xgboost": TreePreset(
        f"the product model with {_BOOSTED} XGBoost", "xgboost"
    ),
    "trees_listwise": TreePreset(
        f"the listwise model with {_BOOSTED} LightGBM", objective="listwise"
    ),
    "lambdamart": TreePreset(
        "LambdaMART on judgments from debiased clicks, by LightGBM",
        objective="judgments",
    ),
}
"""Rankers of trees by name; `debias.training.fit_trees` fits them."""


READS_CONTEXT = ("mixture", "listwise_mixture")  # features of the session
READS_TARGETS = ("multi_target",)  # actions beside clicks; never chosen by clicks


def build(name: str, layout: "Layout", seed: int = 0) -> "ClickModel":
    """Builds a new model by its name in `PRESETS`.

    Raises:
        ValueError: `PRESETS` lacks the name. Other functions fit corrections and trees.

    >>> [name for name, each in PRESETS.items() if not each.predicts_clicks][:3]
    ['softmax_naive', 'listwise', 'listwise_linear']
    """
    if name in CORRECTIONS:
        raise ValueError(
            f"{name} is a correction, which needs the log: call "
            f"debias.training.correction({name!r}, log)"
        )
    if name in TREES:
        raise ValueError(f"{name} is trained by debias.training.fit_trees(log, data)")
    if name not in PRESETS:
        from debias.data.text import one_of  # loads NumPy, which --help does not need

        raise ValueError(one_of("model", PRESETS, name))
    return PRESETS[name].build(layout, seed)
