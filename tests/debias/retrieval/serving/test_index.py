"""Tests of debias.retrieval.serving.index."""

from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.retrieval.serving import index as module
from debias.retrieval.serving.index import (
    Asked,
    Index,
    annoy,
    build,
    distinct,
    exact,
    found_share,
    hnsw,
    ivf,
    lifted,
    measured,
    open_searcher,
    pq,
)

BUILDERS = [
    pytest.param(
        annoy,
        id="annoy",
        marks=pytest.mark.skipif(find_spec("annoy") is None, reason="needs annoy"),
    ),
    pytest.param(hnsw, id="hnsw"),
    pytest.param(partial(ivf, probes=24), id="ivf"),
    pytest.param(partial(pq, probes=24, parts=8), id="pq"),
]
RNG = np.random.default_rng(0)
# 30 clusters, lengths from 1 to 3.
CLUSTERED = np.repeat(RNG.normal(size=(30, 8)), 40, axis=0)
CLUSTERED += 0.3 * RNG.normal(size=CLUSTERED.shape)
CLUSTERED = (CLUSTERED / np.linalg.norm(CLUSTERED, axis=1)[:, None]).astype("float32")
UNEQUAL = CLUSTERED * np.linspace(1, 3, len(CLUSTERED), dtype="float32")[:, None]


class Knows:
    """A searcher that is exact about the vectors that it was given."""

    def __init__(self, vectors):
        self.vectors, self.size, self.dim = vectors, *vectors.shape

    def rows(self, queries, k):
        scores = queries @ self.vectors.T
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]


class Forgets(Knows):
    """One that names the best row only, whatever it is asked for."""

    def rows(self, queries, k):
        best = (queries @ self.vectors.T).max(axis=0).argmax()
        return np.full((len(queries), 1), best)


@pytest.fixture
def always_search(monkeypatch):
    monkeypatch.setattr(module, "EXACT", 0)


def by_hand(query, vectors, k, seen=(), allowed=None):
    scores = (vectors @ np.atleast_2d(query).T).max(axis=1)
    rows = [
        row
        for row in np.argsort(-scores, kind="stable").tolist()
        if row not in seen and (allowed is None or allowed[row])
    ]
    return rows[:k]


def test_exact_compares_all_in_pieces(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 7)
    vectors = RNG.integers(-3, 4, (50, 3)).astype("float32")  # with many equal scores
    queries = RNG.integers(-3, 4, (300, 3)).astype("float32")
    rows, scores = exact(queries, vectors, 9)
    products = queries @ vectors.T
    wanted = np.argsort(-products, axis=1, kind="stable")[:, :9]
    assert (rows == wanted).all()
    assert (scores == np.take_along_axis(products, wanted, axis=1)).all()
    assert exact(queries, vectors, 99)[0].shape == (300, 50)


def test_exact_of_several_vectors_takes_the_largest_and_passes_over_empty_ones():
    vectors = np.array([[1, 0], [0, 2], [-1, -1]], "float32")
    queries = np.array([[[1, 0], [0, 1], [0, 0]]], "float32")
    rows, scores = exact(queries, vectors, 3)
    assert rows.tolist() == [[1, 0, 2]] and scores.tolist() == [[2.0, 1.0, -1.0]]


@pytest.mark.parametrize("how", BUILDERS)
@pytest.mark.parametrize("vectors", [CLUSTERED, UNEQUAL], ids=["unit", "unequal"])
def test_searchers_find_what_comparing_all_finds(how, vectors, always_search):
    users = RNG.normal(size=(60, 8)).astype("float32")
    index = build(vectors, how, users, k=10)
    assert index.report.recall > 0.9 and index.report.k == 10
    assert 0 < index.report.p50_ms <= index.report.p99_ms


@pytest.mark.parametrize("how", BUILDERS)
def test_a_saved_searcher_answers_alike(how, tmp_path):
    made = how(UNEQUAL)
    made.save(tmp_path)
    read = open_searcher(tmp_path, 8)
    assert (read.dim, read.size, str(read)) == (8, len(UNEQUAL), str(made))
    assert (read.rows(CLUSTERED[:5], 7) == made.rows(CLUSTERED[:5], 7)).all()


SMALL = {"links": 8, "effort": 32, "build_effort": 40}


def isotropic(count, dim):
    """Vectors of length 1 in random directions, and queries."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype("float32"), rng.normal(size=(100, dim)).astype("float32")


def test_a_graph_of_unequal_lengths_is_that_which_finds_more():
    vectors, queries = isotropic(4_000, 16)
    lengths = np.exp(0.3 * np.random.default_rng(1).normal(size=(4_000, 1)))
    vectors *= lengths.astype("float32")
    graph = hnsw(vectors, **SMALL, asked=Asked(queries, 10, 0.9))
    assert graph.index.d == 16 and graph.effort == 32  # of the inner product
    assert found_share(graph, vectors, queries, 10) > 0.9
    # Of clusters it is the lifted one, whose queries are the items themselves.
    assert hnsw(UNEQUAL, asked=Asked(k=10)).index.d == 9


def test_equal_vectors_are_one_point_of_a_graph(tmp_path):
    vectors, queries = isotropic(4_000, 16)
    vectors[500:2_500] = vectors[0]
    graph = hnsw(vectors, **SMALL, asked=Asked(queries, 10, 0.9))
    assert (graph.size, graph.index.ntotal) == (4_000, 2_000)
    assert found_share(graph, vectors, queries, 10) > 0.9
    rows = graph.rows(vectors[:1], 2_100)[0]
    assert set(rows[rows >= 0]) >= {0, *range(500, 2_500)}
    graph.save(tmp_path)
    read = open_searcher(tmp_path, 16)
    assert (read.rows(queries, 30) == graph.rows(queries, 30)).all()
    assert read.size == 4_000


def test_distinct_vectors_by_hand():
    rows = np.array([[1, 2], [3, 4], [1, 2], [0, 9], [3, 4], [2, 1]], "float32")
    first, place = distinct(rows)
    assert first.tolist() == [0, 1, 3, 5] and place.tolist() == [0, 1, 0, 2, 1, 3]


@pytest.mark.parametrize(
    "how", [partial(hnsw, links=4, effort=16, build_effort=16), partial(ivf, probes=2)]
)
def test_a_searcher_that_finds_too_little_says_so_and_doubles_its_effort(how):
    vectors, queries = isotropic(2_000, 16)
    asked = Asked(queries, 10, 0.99)
    with pytest.warns(UserWarning, match=r"finds 0\.\d+ of the best 10, but 0.99 is"):
        searcher = how(vectors, asked=asked)
    own = how.keywords.get("effort", how.keywords.get("probes"))
    assert searcher.effort == 8 * own
    more = found_share(searcher, vectors, queries, 10)
    searcher.effort = own
    assert found_share(searcher, vectors, queries, 10) < more - 0.1


def test_build_asks_for_its_queries_and_a_searcher_without_recall_is_left_alone():
    seen = []

    def how(vectors, progress, *, asked):
        seen.append(asked)
        return Knows(vectors)

    build(CLUSTERED, how, CLUSTERED[:3], k=7, recall=0.8)
    assert seen[0].k == 7 and seen[0].recall == 0.8 and len(seen[0].queries) == 3
    assert build(CLUSTERED, lambda vectors, progress: Knows(vectors)).searcher.dim == 8


def test_a_searcher_that_is_damaged_or_absent(tmp_path):
    assert open_searcher(tmp_path, 8) is None
    (tmp_path / "index.faiss").write_bytes(b"IxHN no more")
    with pytest.raises(ValueError, match=r"index\.faiss: is not a Faiss index"):
        open_searcher(tmp_path, 8)


def test_lifted_vectors_lie_in_the_order_of_inner_products():
    query = np.append(CLUSTERED[0], 0)
    apart = np.linalg.norm(lifted(UNEQUAL) - query, axis=1)
    products = UNEQUAL @ CLUSTERED[0]
    # |q - v|^2 = |q|^2 + 3^2 - 2 q v, the longest being of length 3.
    np.testing.assert_allclose(apart**2, 1 + 9 - 2 * products, rtol=1e-5)
    assert lifted(CLUSTERED) is CLUSTERED


@settings(max_examples=100, deadline=None)
@given(data=st.data(), searcher=st.sampled_from([Knows, Forgets, None]))
def test_an_answer_is_that_of_comparing_what_is_allowed(data, searcher):
    """Whatever was seen, is allowed, has changed or come since it was built."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    old, size = (
        rng.normal(size=(30, 3)).astype("float32"),
        data.draw(st.integers(30, 36)),
    )
    changed = data.draw(st.sets(st.integers(0, 29), max_size=12))
    rows = np.array([*sorted(changed), *range(30, size)], int)
    index = Index(old, searcher and searcher(old))
    index = index.upsert(rows, rng.normal(size=(len(rows), 3)))
    seen = data.draw(st.lists(st.integers(0, size - 1), max_size=20))
    allowed = data.draw(
        st.none() | st.lists(st.booleans(), min_size=size, max_size=size).map(np.array)
    )
    k = data.draw(st.integers(1, 40))
    query = rng.normal(size=data.draw(st.sampled_from([(3,), (2, 3)])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXACT", 0)
        found, scores = index.search(query, k, seen, allowed)
    assert found.tolist() == by_hand(query, index.vectors, k, seen, allowed)
    assert (np.diff(scores) <= 0).all()


def test_a_searcher_is_asked_and_what_it_names_is_what_is_scored(always_search):
    """Else the property above would hold of an index that always compares all."""
    rows = Index(UNEQUAL, Forgets(UNEQUAL)).search(UNEQUAL[5], 1)[0]
    assert rows.tolist() == by_hand(UNEQUAL[5], UNEQUAL, 1)
    blind = Knows(np.roll(UNEQUAL, 7, axis=0))  # takes each row for another
    assert Index(UNEQUAL, blind).search(UNEQUAL[5], 1)[0] != [5]


def test_an_empty_interest_stands_for_none_wherever_it_stands():
    index = Index(-np.eye(2, dtype="float32"))
    for query in ([[0, 0], [1, 2]], [[1, 2], [0, 0]]):
        rows, scores = index.search(query, 2)
        assert rows.tolist() == [0, 1] and scores.tolist() == [-1.0, -2.0]
    assert index.search([[0, 0], [0, 0]], 1)[1].tolist() == [0.0]


def test_upsert_leaves_the_old_index_as_it_was():
    old = Index(np.eye(3, dtype="float32"), Knows(np.eye(3, dtype="float32")))
    new = old.upsert([3, 1], [[0, 9, 0], [5, 0, 0]])
    assert new.fresh.tolist() == [1, 3] and len(old) == 3 and len(new) == 4
    assert new.search([1, 0, 0], 1)[0].tolist() == [1]
    assert new.search([0, 1, 0], 1)[0].tolist() == [3]
    assert old.search([1, 0, 0], 1)[0].tolist() == [0]


def test_recall_is_the_share_of_the_best_that_was_found():
    vectors = np.array([[1.0], [2], [3], [4]], "float32")

    class Half(Index):
        def search(self, query, k):
            return np.array([3, 0]), np.array([4.0, 1.0])  # of the best, 3 and 2

    found = measured(Half(vectors), np.ones((5, 1), "float32"), k=2)
    assert found.recall == 0.5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Index(np.eye(2)), "float32"),
        (lambda: Index(UNEQUAL, Knows(np.eye(9))), "size 9, but the items have size 8"),
        (lambda: Index(UNEQUAL, Knows(UNEQUAL[:9])), "knows 9 of 1200 items"),
        (lambda: Index(UNEQUAL).search(UNEQUAL[0], 0), "k must be at least 1, got 0"),
        (lambda: Index(UNEQUAL).search(UNEQUAL[0] * np.nan, 3), "8 finite numbers"),
        (lambda: Index(UNEQUAL).search(np.ones(7), 3), "8 finite numbers"),
        (lambda: Index(UNEQUAL).upsert([1, 1], UNEQUAL[:2]), "distinct"),
        (lambda: Index(UNEQUAL).upsert([1201], UNEQUAL[:1]), "without a gap"),
        (lambda: Index(UNEQUAL).upsert([1], UNEQUAL[:1, :3]), r"must be \(1, 8\)"),
        (lambda: Index(UNEQUAL).upsert([1], UNEQUAL[:1] * np.nan), "finite"),
        (lambda: build(np.array([[1.0], [np.nan]]), None), "row 1 is not"),
        (lambda: exact(UNEQUAL, UNEQUAL, 0), "k must be at least 1"),
        (lambda: pq(UNEQUAL[:99]), "at least 256 vectors, got 99"),
    ],
)
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_absent_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match=r"debias-ranking\[retrieval\]"):
        hnsw(CLUSTERED)
