"""Tests of benchmarks.harness.plan."""

import pytest

from tests.benchmarks.fakes import Fake, table


def test_rows_and_populations_are_in_the_order_given_and_of_both_versions():
    found = table(
        Fake("dot"), Fake("additive"), Fake("dot", "grid"), quick=(Fake("naive"),)
    )
    assert found.rows == ("dot", "additive", "naive")
    assert found.populations == ("mixed", "grid")
    assert [e.row for e in found.variant(quick=True)] == ["naive"]


@pytest.mark.parametrize(
    "experiments, options, message",
    [
        ((Fake("a b"),), {}, "row 'a b' must be a name"),
        ((Fake("a", "b,c"),), {}, "population 'b,c' must be a name"),
        ((Fake("a"),), {"metrics": ("ndcg=5",)}, "metric 'ndcg=5' must be a name"),
        ((Fake("a"),), {"baseline": "b"}, "must be rows, got 'b'"),
        ((Fake("a"),), {"bounds": ("b",)}, "must be rows, got 'b'"),
        ((Fake("a"), Fake("a", value=0.1)), {}, r"several of \[\('a', 'mixed'\)\]"),
    ],
)
def test_rejects(experiments, options, message):
    with pytest.raises(ValueError, match=f"table main: .*{message}"):
        table(*experiments, **options)


def test_a_table_without_a_quick_version_says_so():
    with pytest.raises(ValueError, match="table main has no quick version"):
        table(Fake("a"), quick=()).variant(quick=True)
