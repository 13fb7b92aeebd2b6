"""Tests of benchmarks.questions.production."""

from benchmarks.questions.production import TABLE, Learned


def test_a_stronger_ranker_is_worth_more_as_it_is():
    weak, strong = (
        Learned("production", "pbm", labels, "1e3").measure(3, None)
        for labels in (1, 100)
    )
    assert set(TABLE.metrics) <= set(weak)
    assert strong["ndcg@5"] > weak["ndcg@5"] + 0.05
    assert strong["expected_clicks"] > weak["expected_clicks"]


def test_populations_name_crowd_labels_and_sessions():
    assert "trust-100-1e4" in TABLE.populations and len(TABLE.populations) == 30
