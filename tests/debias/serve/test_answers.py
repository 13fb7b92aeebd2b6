"""Tests of debias.serve.answers: raw features by name; scores are finite."""

from dataclasses import replace

import numpy as np
import pytest

from debias.data.kinds import Feature, column_names
from debias.engine.scoring import Scorer
from debias.retrieval.data.interactions import FeatureTable
from debias.retrieval.serving import versions
from debias.serve.answers import explained, ranked, recommended
from debias.serve.examples import examples
from debias.serve.live import Alone
from debias.serve.schemas import ExplainRequest, RankRequest, RecommendRequest
from tests.debias.retrieval import worlds


@pytest.fixture
def version(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    return versions.load(tmp_path / "root")


NAME = "a version"
RAW = Scorer(
    # Codes count from 2; of a list of tags the first two are columns.
    lambda x: x @ np.array([1.0, 10.0, 100.0, 1000.0]),
    ("tags[0]", "tags[1]", "kind", "price"),
    (
        Feature("tags", "categories", ("high", "low", "top"), 2),
        Feature("kind", "category", ("even", "odd")),
        Feature("price"),
    ),
)


def test_raw_features_are_coded_as_the_ranker_has_learned_them(version):
    items = [
        {"tags": ["low", "new"], "kind": "odd", "price": 2},
        {"tags": [], "kind": None, "price": 0.5},
    ]
    found = ranked(version, RAW, RankRequest(items=items), NAME).scores
    # low is 3, new is unknown: 1, odd is 3; nothing is 0.
    assert found == [3 + 10 * 1 + 100 * 3 + 1000 * 2, 500]
    # Item 7 of the version has the tags high and top and is odd; item 4 is low, even.
    found = ranked(version, RAW, RankRequest(ids=["1-7", "1-4"]), NAME).scores
    assert found == [2 + 10 * 4 + 100 * 3 + 7000, 3 + 100 * 2 + 4000]
    shared = RankRequest(items=[{"tags": ["top"], "price": 1}], context={"kind": "odd"})
    assert ranked(version, RAW, shared, NAME).scores == [4 + 100 * 3 + 1000]


def test_codes_of_a_version_are_those_of_its_raw_values(version):
    """Rows by id, whose codes are translated, against the same rows as raw values."""
    items = {
        "id": ["1-0", "1-1", "1-2", "1-3"],
        "one": ["b", "", "new", "a"],
        "some": [["x", "new", "y"], [], ["y", "", "x"], ["z"]],
        "size": np.array([3.0, 0.5, 2.0, 0.0]),
        "shade": np.array([1.0, 2.0, 3.0, 4.0]),
    }
    kinds = (
        Feature("one", "category", ("a", "b")),
        Feature("some", "categories", ("x", "y", "z"), 2),
        Feature("size", "category", ("0", "3")),  # numbers as categories
        Feature("shade"),
        Feature("hour", "category", ("9",)),
    )
    table = FeatureTable.build(items)
    ranker = Scorer(lambda x: x @ 10.0 ** np.arange(6), column_names(kinds), kinds)
    known = replace(version, items=table)
    raw = [
        dict(zip(items, values, strict=True))
        for values in zip(*(list(column) for column in items.values()), strict=True)
    ]
    for row in raw:
        row["size"], row["shade"] = float(row["size"]), float(row["shade"])
        row["some"] = [word for word in row["some"] if word]
    asked = RankRequest(ids=items["id"], context={"hour": "9"})
    by_id = ranked(known, ranker, asked, NAME).scores
    asked = RankRequest(items=raw, context={"hour": "9"})
    assert by_id == ranked(known, ranker, asked, NAME).scores
    none = RecommendRequest(where={"shade": [9, None]}, context={"hour": "9"})
    assert recommended(known, ranker, none).items == []
    # b is 3; x and new are 2 and 1; the size 3 is 3; a shade of 1; the hour 9 is 2.
    assert by_id[0] == 3 + 20 + 100 + 3_000 + 10_000 + 200_000


@pytest.mark.parametrize(
    "item, reason",
    [
        ({"kind": "odd", "price": 1}, "the feature tags of the ranker is missing"),
        ({"tags": ["a"], "kind": "odd", "price": "dear"}, "price"),
        ({"tags": "a", "kind": "odd", "price": 1}, "tags must be a list of text"),
        ({"tags": ["a", 1], "kind": "odd", "price": 1}, "tags must be a list of text"),
        ({"tags": ["a"], "kind": "odd", "price": 10**39}, "price must be finite"),
        (
            {"tags": ["a"], "kind": "odd", "price": None},
            "score of item 0 is not finite; it lacks the feature price",
        ),
    ],
)
def test_raw_features_that_are_refused(version, item, reason):
    with pytest.raises(ValueError, match=reason):
        ranked(version, RAW, RankRequest(items=[item]), NAME)


DATED = (
    Feature("kind", "category", ("odd",)),
    Feature("day", "date"),
    Feature("price"),
)


@pytest.mark.parametrize(
    "feature, value, reason",
    [
        ("price", "dear", "must be a number, the same kind in every item, got 'dear'"),
        ("price", True, "must be a number, .* got True"),
        ("price", [1], "must be a number, .* got "),
        ("price", 1e39, "must be finite, got 1e\\+39"),
        ("price", 10**400, "must be a number"),
        ("kind", 5, "must be text or a whole number, .* got 5"),
        ("day", 5, "must be a date such as 2026-01-31, .* got 5"),
        ("day", "2026-13-01", "must be a date, got '2026-13-01'"),
    ],
)
def test_a_bad_value_is_said_by_item_and_feature(feature, value, reason):
    ranker = Scorer(lambda x: x.sum(axis=-1), ("kind", "day", "price"), DATED)
    good = {"kind": "odd", "day": "2026-01-31", "price": 1}
    items = [good, good, good | {feature: value}, good]
    with pytest.raises(
        ValueError, match=rf"^items\[2\]: the feature {feature} {reason}"
    ):
        ranked(None, ranker, RankRequest(items=items), NAME)


def test_a_bad_value_of_the_context_is_said_so():
    ranker = Scorer(lambda x: x[..., 0], ("price",), (Feature("price"),))
    asked = RankRequest(items=[{}, {}], context={"price": "dear"})
    wanted = "^context: the feature price must be a finite number, got 'dear'$"
    with pytest.raises(ValueError, match=wanted):
        ranked(None, ranker, asked, NAME)


def test_whole_numbers_beyond_any_type_are_numbers():
    ranker = Scorer(lambda x: x[..., 0], ("price",), (Feature("price"),))
    asked = RankRequest(items=[{"price": 10**30}, {"price": None}, {"price": 2}])
    with pytest.raises(ValueError, match="item 1 is not finite; it lacks"):
        ranked(None, ranker, asked, NAME)
    asked = RankRequest(items=[{"price": 10**30}, {"price": 2}])
    assert ranked(None, ranker, asked, NAME).scores == pytest.approx([1e30, 2])


@pytest.mark.parametrize(
    "rows, reason",
    [
        ([[1, 2], [3, 1e39]], r"features\[1\]\[1\]: must be a finite number .* 1e\+39"),
        (
            [[1, 2], [3]],
            r"features\[1\]: must have 2 numbers, as features\[0\] has, got 1",
        ),
    ],
)
def test_rows_of_features_that_are_refused(rows, reason):
    with pytest.raises(ValueError, match=reason):
        ranked(None, Scorer(lambda x: x[..., 0]), RankRequest(features=rows), NAME)


def test_a_score_that_is_no_number_is_refused(version):
    ranker = Scorer(lambda x: np.where(x[..., 0] > 1, np.nan, x[..., 0]))
    asked = RankRequest(features=[[1.0], [2.0]])
    with pytest.raises(ValueError, match="score of item 1 is not finite"):
        ranked(version, ranker, asked, NAME)
    assert ranked(version, ranker, RankRequest(features=[[1.0]]), NAME).scores == [1.0]


def test_an_answer_says_its_two_scores_its_neighbours_and_its_bias(version):
    # Ann took item 1 and is .5 old: items 9, 5 and 8 score 1.01 * 1.09, 1.01 * 1.05 and
    # .5 * 1.08. Items 5 and 9 lie on the axis of item 1, item 8 on another.
    ranker = Scorer(lambda x: -x[..., 0], ("price",), examination=(1.0, 0.5))
    asked = ExplainRequest(user={"id": "ann"}, k=3, candidates=3)
    found = explained(version, ranker, asked)
    assert found.history == ["1-1"] and found.known
    shown = [(e.item, e.candidate, e.relevance) for e in found.items]
    assert shown == [("1-5", 2, -5.0), ("1-8", 3, -8.0), ("1-9", 1, -9.0)]
    retrieved = [e.retrieved for e in found.items]
    assert retrieved == pytest.approx([1.01 * 1.05, 0.5 * 1.08, 1.01 * 1.09])
    assert [[n.item for n in e.nearest] for e in found.items] == [["1-1"]] * 3
    cosines = [e.nearest[0].similarity for e in found.items]
    assert cosines == pytest.approx([1.0, 0.0, 1.0])
    assert [e.examination for e in found.items] == [1.0, 0.5, None]
    biases = [e.bias for e in found.items]
    assert biases == [0.0, pytest.approx(np.log(0.5)), None]


def test_why_without_a_ranker_and_without_a_history(version):
    found = explained(version, None, ExplainRequest(user={"age": 1}, k=2))
    assert [e.item for e in found.items] == ["1-8", "1-4"]
    assert [(e.relevance, e.nearest, e.bias) for e in found.items] == [
        (None, [], None)
    ] * 2
    plain = explained(version, RAW, ExplainRequest(user={"age": 1}, k=2, rank=False))
    assert plain.items == found.items
    with pytest.raises(ValueError, match="rank: there is no ranker"):
        explained(version, None, ExplainRequest(rank=True))


def test_examples_are_of_the_kinds_of_a_ranker():
    some = (Feature("day", "date"), Feature("kind", "category", ("odd",)))
    ranker = Scorer(
        lambda x: x.sum(axis=-1), ("day", "kind"), some, name="r/ranker.onnx"
    )
    assert [Alone(ranker).name, examples(None, None, "")] == ["ranker.onnx", {}]
    shown = examples(None, ranker, "x")["/rank"]
    assert shown.request["items"][0] == {"day": "2026-01-31", "kind": "odd"}
    # 56 years, 14 of them leap, and 30 days; odd is code 2.
    assert shown.answer["scores"] == [56 * 365 + 14 + 30 + 2] * 2
    trained = Scorer(ranker.run, name="/x/shop/ranker.keras")
    assert Alone(trained).name == "shop"


def test_a_ranker_alone_has_no_ids():
    ranker = Scorer(lambda x: x[..., 0], ("price",))
    found = ranked(None, ranker, RankRequest(items=[{"price": 2}]), "mine")
    assert (found.version, found.scores) == ("mine", [2.0])
    with pytest.raises(ValueError, match="ids: a ranker alone has no table"):
        ranked(None, ranker, RankRequest(ids=["a"]), "mine")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_scorer_takes_data_frames(library):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({"b": [1.0, 2.0], "name": ["x", "y"], "a": [10, 20]})
    assert Scorer(lambda x: x[..., 0] - x[..., 1], ("a", "b"))(frame).tolist() == [
        9,
        18,
    ]
    with pytest.raises(ValueError, match="does not know the names of its features"):
        Scorer(lambda x: x[..., 0])(frame)
