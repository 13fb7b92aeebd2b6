"""Tests of benchmarks.rates.ann: its vectors, and that a case measures what it says."""

import numpy as np
import pytest

from benchmarks.rates import ann
from debias.retrieval.serving import index


def test_users_are_near_items_where_vectors_are_clustered():
    rng = np.random.default_rng(0)
    nearest = {}
    for make in (ann.clustered, ann.normal):
        items, users = make(rng, 5_000, 200)
        for vectors in (items, users):
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        nearest[make] = np.median((users @ items.T).max(axis=1))
    assert nearest[ann.clustered] > nearest[ann.normal] + 0.1


@pytest.mark.parametrize("row, recall", [("ann_hnsw", 1.0), ("blind", 0.0)])
def test_recall_is_that_of_the_searcher_alone(row, recall, monkeypatch):
    """One that names the wrong rows finds nothing; nothing is compared in its place."""

    class Blind(index.Faiss):
        def rows(self, queries, k):
            return np.argsort(queries @ self.vectors.T)[:, : max(k, ann.K)]

    def blind(vectors):
        made = index.hnsw(vectors)
        searcher = Blind(made.index, made.dim)
        searcher.vectors = vectors
        return searcher

    monkeypatch.setitem(ann.SEARCHERS, "blind", blind)
    monkeypatch.setitem(ann.MAKERS, "tiny", (ann.clustered, 2_000))
    monkeypatch.setattr(ann, "QUERIES", 30)
    monkeypatch.setattr(index, "EXACT", 0)
    found = ann.Ann(row, "tiny").measure(0, None)
    assert found["recall@100"] == pytest.approx(recall, abs=0.02)
    assert 0 < found["p50_ms"] <= found["p99_ms"] and found["file_mb"] > 2_000 * 256e-6


def test_there_is_a_case_for_every_searcher_on_every_kind_of_vectors():
    assert len(ann.CASES) == len(ann.SEARCHERS) * len(ann.MAKERS)
    assert ann.Ann("ann_hnsw", "clustered-1M").settings()["effort"] == 768
