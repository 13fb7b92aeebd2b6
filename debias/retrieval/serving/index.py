"""Searches for the items with the largest inner products with a user's vectors.

`exact` compares all items. A `Searcher` is much faster than `exact`, but its result is
approximate. `hnsw`, `ivf` and `pq` use Faiss. `annoy` uses Annoy, and
`debias.retrieval.serving.milvus` uses Milvus; each needs the extra of the same name. An
`Index` combines all vectors, a searcher, and the rows that changed since the searcher
was built. The index computes the exact scores of the rows that the searcher finds, and
removes rows that a filter excludes. If too few rows remain, the index compares all
items. So an answer has fewer than k items only if the filter allows fewer than k items.
"""

import inspect
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from debias.engine.extras import installed
from debias.retrieval.training.evaluation import best, dot_scores

EXACT = 20_000  # most rows that are compared exhaustively, in about a millisecond
DEEPEST = 4_096  # most rows requested from a searcher
SPARE = 1.25  # safety factor of the rows requested for a filtered search
PIECE = 1 << 16  # vectors processed at a time
RECALL = 0.95  # required recall of a searcher
DOUBLINGS = 3  # most doublings of the effort of a searcher with too low a recall
SAMPLE = 200  # queries that measure the recall
ALIKE = 0.01  # share of duplicates from which each distinct vector is stored once

Rows = np.ndarray
Progress = Callable[[float], None]


def exact(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[Rows, np.ndarray]:
    """The k rows with the largest inner products, by exhaustive search.

    Args:
        queries: (Q, d), or (Q, K, d) for several vectors per query. With several
            vectors, the score of an item is its largest inner product with a vector of
            the query, see `debias.retrieval.training.evaluation.dot_scores`.
        vectors: (N, d).
        k: At least 1.

    Returns:
        (Q, min(k, N)) rows and scores, by decreasing score. Ties are ordered by row.

    >>> rows, scores = exact(np.array([[1.0, 0.0]]), np.eye(2) * 3, 1)
    >>> rows.tolist(), scores.tolist()
    ([[0]], [[3.0]])
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    found = []
    for queries_ in np.split(queries, range(256, len(queries), 256)):
        rows = np.empty((len(queries_), 0), np.int64)
        scores = np.empty((len(queries_), 0), np.float32)
        for start in range(0, len(vectors), PIECE):
            part = dot_scores(queries_, vectors[start : start + PIECE])
            here = np.broadcast_to(np.arange(part.shape[1]) + start, part.shape)
            scores, rows = np.hstack([scores, part]), np.hstack([rows, here])
            kept = best(scores, k)
            scores = np.take_along_axis(scores, kept, axis=1)
            rows = np.take_along_axis(rows, kept, axis=1)
        found.append((rows, scores))
    both = zip(*found, strict=True)
    every_row, every_score = (np.concatenate(part) for part in both)
    return every_row, every_score


class Searcher(Protocol):
    """Interface of approximate searches for the largest inner products.

    Attributes:
        dim: d.
        size: N, the number of vectors when the searcher was built.
    """

    dim: int
    size: int

    def rows(self, queries: np.ndarray, k: int) -> Rows:
        """Finds at least k rows per float32 query (Q, d), padded with -1."""

    def save(self, folder: Path) -> None:
        """Writes the searcher into a folder, for `open_searcher`."""


class Faiss:
    """A Faiss index over `lifted` or original vectors.

    Args:
        index: The Faiss index.
        dim: d, the dimension of vectors and queries.
        place: (N,) row of each vector in the Faiss index, if equal vectors share a row.
            If None, row r of the Faiss index is vector r.
    """

    def __init__(self, index: Any, dim: int, place: Rows | None = None):
        self.index, self.dim, self.place = index, dim, place
        # Codes are approximate, so more than k candidates are scored exactly.
        self.deeper = 4 if hasattr(index, "pq") else 1
        self.size = index.ntotal if place is None else len(place)
        if place is not None:
            self.members = np.argsort(place, kind="stable")
            self.starts = np.searchsorted(place[self.members], range(index.ntotal + 1))

    @property
    def effort(self) -> int:
        """Number of candidates in a graph search, or number of lists to search."""
        graph = getattr(self.index, "hnsw", None)
        return self.index.nprobe if graph is None else graph.efSearch

    @effort.setter
    def effort(self, effort: int) -> None:
        if hasattr(self.index, "hnsw"):
            self.index.hnsw.efSearch = effort
        else:
            self.index.nprobe = effort

    def rows(self, queries: np.ndarray, k: int) -> Rows:
        queries = np.pad(queries, ((0, 0), (0, self.index.d - self.dim)))
        most = min(self.deeper * k, self.index.ntotal)
        found = self.index.search(queries, most)[1]
        return found if self.place is None else self._all_of(found, k)

    def _all_of(self, found: Rows, k: int) -> Rows:
        """Replaces each found row by all rows with the same vector."""
        rows = np.full((len(found), 2 * k), -1, np.int64)
        for row, kept in zip(rows, found, strict=True):
            filled = 0
            for one in kept[kept >= 0]:
                same = self.members[self.starts[one] : self.starts[one + 1]][:k]
                row[filled : filled + len(same)] = same
                if (filled := filled + len(same)) >= k:
                    break
        return rows

    def __str__(self) -> str:
        return type(self.index).__name__

    def save(self, folder: Path) -> None:
        installed("faiss", "retrieval").write_index(
            self.index, str(folder / "index.faiss")
        )
        if self.place is not None:
            np.save(folder / "place.npy", self.place)


class Annoy:
    """An Annoy forest; a search examines about `LOOKS` * k vectors per tree."""

    LOOKS = 2

    def __init__(self, forest: Any):
        self.forest = forest
        self.dim, self.size = forest.f, forest.get_n_items()

    def rows(self, queries: np.ndarray, k: int) -> Rows:
        looks = self.LOOKS * k * self.forest.get_n_trees()
        found = np.full((len(queries), k), -1, np.int64)
        for row, query in zip(found, queries, strict=True):
            named = self.forest.get_nns_by_vector(query, k, looks)
            row[: len(named)] = named
        return found

    def __str__(self) -> str:
        return f"Annoy, {self.forest.get_n_trees()} trees"

    def save(self, folder: Path) -> None:
        self.forest.save(str(folder / "index.annoy"))


def open_searcher(folder: Path, dim: int) -> Searcher | None:
    """Opens the searcher in a folder; returns None if the folder has no searcher.

    Raises:
        ValueError: The file is damaged.
    """
    if (path := folder / "index.faiss").exists():
        faiss = installed("faiss", "retrieval")
        try:  # memory-mapped, so processes share one copy
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ValueError(f"{path}: is not a Faiss index: {error}") from None
        places = folder / "place.npy"
        return Faiss(index, dim, np.load(places) if places.exists() else None)
    if (path := folder / "index.annoy").exists():
        forest = installed("annoy", "retrieval").AnnoyIndex(dim, "dot")
        try:
            forest.load(str(path))
        except OSError as error:
            raise ValueError(f"{path}: is not an Annoy index: {error}") from None
        return Annoy(forest)
    if (path := folder / "index.milvus").exists():
        from debias.retrieval.serving.milvus import open_milvus

        return open_milvus(path, dim)
    return None


def lifted(vectors: np.ndarray) -> np.ndarray:
    """Extends vectors so that Euclidean search gives the order of inner products.

    Each vector gets the additional entry sqrt(max |v|^2 - |v|^2), and each query gets
    the additional entry 0. The extended vectors have equal length, and |q - v|^2 =
    |q|^2 + max |v|^2 - 2 q v. Vectors that already have equal length are returned
    unchanged.

    Source: Bachrach et al., Speeding Up the Xbox Recommender System Using a Euclidean
    Transformation for Inner-Product Spaces, RecSys 2014.

    >>> lifted(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[3.0, 4.0, 0.0], [0.0, 0.0, 5.0]]
    """
    square = np.einsum("nd,nd->n", vectors, vectors)
    most = square.max(initial=0.0)
    if np.allclose(square, most, rtol=1e-4):
        return vectors
    rest = np.sqrt(np.maximum(most - square, 0.0))
    return np.hstack([vectors, rest[:, None]]).astype(vectors.dtype)


def distinct(vectors: np.ndarray) -> tuple[Rows, Rows]:
    """First row of each distinct vector, and index of each row's distinct vector.

    >>> first, place = distinct(np.array([[1, 2], [3, 4], [1, 2]], "float32"))
    >>> first.tolist(), place.tolist()
    ([0, 1], [0, 1, 0])
    """
    bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32)
    odd = np.random.default_rng(0).integers(1 << 63, size=bits.shape[1], dtype="u8")
    odd = 2 * odd + 1
    pieces = np.split(bits, range(PIECE, len(bits), PIECE))
    sums = np.concatenate([(piece * odd).sum(axis=1) for piece in pieces])
    _, first, place = np.unique(sums, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first, place = first[order], rank[place]
    if (bits[first[place]] != bits).any():  # two vectors with the same sum
        return np.arange(len(bits)), np.arange(len(bits))
    return first, place


def found_share(
    searcher: Searcher, vectors: np.ndarray, queries: np.ndarray, k: int
) -> float:
    """Recall: mean share of the exact k best items that a searcher finds."""
    _, truth = exact(queries, vectors, k)
    rows = searcher.rows(queries, k)
    scores = np.einsum("qd,qkd->qk", queries, vectors[rows])
    wanted = truth[:, -1:] - 1e-5 * np.abs(truth).max(axis=1, keepdims=True)
    good = np.sum((rows >= 0) & (scores >= wanted), axis=1)
    return float(np.mean(np.minimum(good / truth.shape[1], 1.0)))


class Asked(NamedTuple):
    """The recall that a searcher must have, and the queries that measure it.

    Attributes:
        queries: (Q, d) or (Q, K, d) user vectors. If None, the queries are `SAMPLE`
            evenly spaced item vectors.
        k: Number of best items to compare with the exact result.
        recall: Required recall: the share of the exact k best items that the searcher
            finds.
    """

    queries: np.ndarray | None = None
    k: int = 100
    recall: float = RECALL

    def measure(self, searcher: Searcher, vectors: np.ndarray) -> float:
        """Measures the recall with at most `SAMPLE` query vectors."""
        queries = vectors if self.queries is None else self.queries
        single = np.asarray(queries, np.float32).reshape(-1, vectors.shape[1])
        single = single[single.any(axis=1)]
        single = single[:: max(1, len(single) // SAMPLE)][:SAMPLE]
        if not len(single):
            return 1.0
        return found_share(searcher, vectors, single, min(self.k, len(vectors)))

    def meet(self, searcher: Faiss, vectors: np.ndarray, share: float) -> Faiss:
        """Doubles a searcher's effort while its recall is too low and still rises."""
        effort, first = searcher.effort, share
        for _ in range(DOUBLINGS):
            if share >= self.recall:
                break
            searcher.effort *= 2
            before, share = share, self.measure(searcher, vectors)
            if share <= before:
                searcher.effort //= 2
                break
        if first < self.recall:
            warnings.warn(
                f"{searcher}: finds {first:.3f} of the best {self.k}, but "
                f"{self.recall} is requested; with effort {searcher.effort} instead of "
                f"{effort} it finds {share:.3f}",
                stacklevel=2,
            )
        return searcher


ASKED = Asked()


def _filled(
    index: Any, vectors: np.ndarray, progress: Progress, dim: int, place: Rows | None
) -> Faiss:
    index.train(vectors)
    for start in range(0, len(vectors), PIECE):
        index.add(vectors[start : start + PIECE])
        progress(min(start + PIECE, len(vectors)) / len(vectors))
    return Faiss(index, dim, place)


def hnsw(
    vectors: np.ndarray,
    progress: Progress = lambda share: None,
    *,
    links: int = 32,
    effort: int = 384,
    build_effort: int = 200,
    asked: Asked = ASKED,
) -> Faiss:
    """Builds an HNSW graph with Faiss: fast, with high recall, but much memory.

    A graph can link vectors of unequal length by the distance of the `lifted` vectors,
    or by the inner product. Which graph has the higher recall depends on the vectors.
    If lengths vary at random, the graph by distance has a recall of only a third. If
    vectors form clusters, the graph by inner product has the lower recall. The graph by
    distance is built first. The graph by inner product is built if the recall of the
    first graph is too low. Equal vectors share one node of the graph, because separate
    nodes would only link to each other.

    Source: Malkov and Yashunin, Efficient and Robust Approximate Nearest Neighbor
    Search Using Hierarchical Navigable Small World Graphs, TPAMI 2020.

    Args:
        vectors: (N, d) float32.
        progress: Function that is called with the share of the index built so far.
        links: M, the number of links per node.
        effort: efSearch, the number of candidates in a search, at least k. If the
            recall is too low, the effort is doubled with a warning.
        build_effort: efConstruction.
        asked: Required recall, and the queries that measure it.
    """
    faiss, dim = installed("faiss", "retrieval"), vectors.shape[1]
    first, place = distinct(vectors)
    shared: Rows | None = place
    points = vectors[first]
    if len(first) > (1 - ALIKE) * len(vectors):
        points, shared = vectors, None
    near = lifted(points)
    graphs = [(near, faiss.METRIC_L2)]
    if near is not points:
        graphs.append((points, faiss.METRIC_INNER_PRODUCT))
    tried: list[tuple[float, Faiss]] = []
    for number, (given, metric) in enumerate(graphs):
        index = faiss.IndexHNSWFlat(given.shape[1], links, metric)
        index.hnsw.efConstruction, index.hnsw.efSearch = build_effort, effort
        part = partial(_part_done, progress, number, len(graphs))
        made = _filled(index, given, part, dim, shared)
        tried.append((asked.measure(made, vectors), made))
        if tried[-1][0] >= asked.recall:
            break
    progress(1.0)
    share, made = max(tried, key=lambda pair: pair[0])
    return asked.meet(made, vectors, share)


def _part_done(progress: Progress, number: int, parts: int, share: float) -> None:
    progress((number + share) / parts)


def ivf(
    vectors: np.ndarray,
    progress: Progress = lambda share: None,
    *,
    lists: int | None = None,
    probes: int = 64,
    asked: Asked = ASKED,
) -> Faiss:
    """Builds inverted lists around centroids with Faiss; building is fast.

    Args:
        vectors, progress, asked: See `hnsw`.
        lists: Number of centroids. If None, there are 4 sqrt(N) centroids.
        probes: Number of lists to search. If the recall is too low, the number of lists
            is doubled like the effort of `hnsw`.
    """
    return _lists(vectors, progress, lists, probes, asked)


def pq(
    vectors: np.ndarray,
    progress: Progress = lambda share: None,
    *,
    lists: int | None = None,
    probes: int = 64,
    parts: int | None = None,
    asked: Asked = ASKED,
) -> Faiss:
    """Builds `ivf` with product quantisation, which needs little memory.

    Source: Jégou et al., Product Quantization for Nearest Neighbor Search, TPAMI 2011.

    Args:
        vectors, progress, lists, probes, asked: See `ivf`.
        parts: Bytes per vector. If None, a vector has one byte for every two of its
            entries.
    """
    if len(vectors) < 256:
        raise ValueError(f"pq needs at least 256 vectors, got {len(vectors)}")
    parts = -(-vectors.shape[1] // 2) if parts is None else parts
    return _lists(vectors, progress, lists, probes, asked, parts)


def _lists(
    vectors: np.ndarray,
    progress: Progress,
    lists: int | None,
    probes: int,
    asked: Asked,
    parts: int = 0,
) -> Faiss:
    near = lifted(vectors)
    if parts:
        near = np.pad(near, ((0, 0), (0, -near.shape[1] % parts)))
    lists = round(4 * len(near) ** 0.5) if lists is None else lists
    lists = max(1, min(lists, len(near) // 39))  # Faiss wants 39 vectors per centre
    code = f"PQ{parts}np" if parts else "Flat"
    index = installed("faiss", "retrieval").index_factory(
        near.shape[1], f"IVF{lists},{code}"
    )
    index.nprobe = probes
    made = _filled(index, near, progress, vectors.shape[1], None)
    return asked.meet(made, vectors, asked.measure(made, vectors))


def annoy(
    vectors: np.ndarray,
    progress: Progress = lambda share: None,
    *,
    trees: int = 50,
    seed: int = 0,
) -> Annoy:
    """Builds random projection trees with Annoy, in a file that processes share.

    Args:
        vectors: See `hnsw`.
        progress: See `hnsw`. The reported share covers only the insertion of vectors,
            not the construction of the trees.
        trees: Number of trees.
        seed: Random seed of the splits in the trees.
    """
    forest = installed("annoy", "retrieval").AnnoyIndex(vectors.shape[1], "dot")
    forest.set_seed(seed)
    for row, vector in enumerate(vectors):
        forest.add_item(row, vector)
        if row % PIECE == 0:
            progress(row / len(vectors))
    forest.build(trees)
    return Annoy(forest)


class Report(NamedTuple):
    """Measurements of a search.

    Attributes:
        kind: Name of the searcher, or "exact".
        recall: Mean share of the exact k best items that the search finds.
        k: Number of best items on which the recall is based.
        p50_ms, p99_ms: Median and 99th percentile of the search time, in milliseconds.
        seconds: Build time in seconds. None if the build time was not measured.
    """

    kind: str
    recall: float
    k: int
    p50_ms: float
    p99_ms: float
    seconds: float | None


@dataclass(frozen=True)
class Index:
    """All vectors, a searcher, and the rows that changed after it was built.

    Attributes:
        vectors: (N, d) float32.
        searcher: The searcher. If None, searches are exhaustive.
        fresh: (F,) rows, in increasing order, whose vectors changed after the searcher
            was built.
        report: Measurements that `build` made, before any `upsert`.

    Raises:
        ValueError: Vectors are not (N, d) float32, or the searcher does not fit the
            vectors.

    >>> index = Index(np.eye(3, dtype="float32"))
    >>> rows, scores = index.search(np.array([0.1, 0.3, 0.2]), 2, seen=[1])
    >>> rows.tolist()
    [2, 0]
    """

    vectors: np.ndarray
    searcher: Searcher | None = None
    fresh: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    report: Report | None = None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise ValueError(
                "vectors must be (N, d) float32, got "
                f"{self.vectors.shape} {self.vectors.dtype}"
            )
        if self.searcher is None:
            return
        if self.searcher.dim != self.dim:
            raise ValueError(
                f"the index has vectors of size {self.searcher.dim}, but the items "
                f"have size {self.dim}: build it from these items"
            )
        known = self.searcher.size
        late = self.fresh[np.searchsorted(self.fresh, known) :]
        if known > len(self.vectors) or len(late) != len(self.vectors) - known:
            raise ValueError(
                f"the index knows {known} of {len(self.vectors)} items, but "
                f"{len(late)} are given as new: build it from these items"
            )

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self,
        query: np.ndarray,
        k: int,
        seen: Sequence[int] | Rows = (),
        allowed: np.ndarray | None = None,
    ) -> tuple[Rows, np.ndarray]:
        """Finds the best rows for one user.

        Args:
            query: (d,) user vector, or (K, d) for several vectors. With several
                vectors, the score of an item is its largest inner product with a
                nonzero query vector.
            k: At least 1.
            seen: Rows to exclude from the answer.
            allowed: (N,) bool, rows to choose from. If None, all rows are allowed.

        Returns:
            Rows and scores of the k best items, by decreasing score. Ties are ordered
            by row. If fewer than k rows are allowed, all allowed rows are returned.

        Raises:
            ValueError: k is less than 1, or the query does not have size d or is not
                finite.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        query = np.atleast_2d(np.asarray(query, np.float32))
        if query.shape[1] != self.dim or not np.isfinite(query).all():
            raise ValueError(f"query must be {self.dim} finite numbers, got {query}")
        if (live := query.any(axis=1)).any():
            query = query[live]
        seen = np.asarray(seen, np.int64)
        rows = self._likely(query, k, seen, allowed)
        if rows is None:
            rows = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
            rows = rows[~np.isin(rows, seen)]
        vectors = self.vectors if len(rows) == len(self) else self.vectors[rows]
        scores = dot_scores(query[None], vectors)
        kept = best(scores, k)[0]
        return rows[kept], scores[0, kept]

    def _likely(
        self, query: np.ndarray, k: int, seen: Rows, allowed: np.ndarray | None
    ) -> Rows | None:
        """Ascending rows that include the answer; None if all rows must be compared."""
        passing = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if self.searcher is None or passing <= EXACT:
            return None
        # Deep enough that k rows remain without forbidden, seen and fresh rows.
        held = max(passing / len(self) - len(self.fresh) / len(self), 1e-9)
        deep = k + len(seen) if held == 1 else SPARE * (k + len(seen)) / held
        if deep > DEEPEST:
            return None
        found = np.unique(
            self.searcher.rows(query, min(int(deep) + 1, self.searcher.size))
        )
        found = found[found >= 0]
        found = np.setdiff1d(found, self.fresh, assume_unique=True)
        found = self._open(found, seen, allowed)
        if len(found) < k:
            return None
        return np.union1d(found, self._open(self.fresh, seen, allowed))

    @staticmethod
    def _open(rows: Rows, seen: Rows, allowed: np.ndarray | None) -> Rows:
        """The rows that may be answers."""
        rows = rows[~np.isin(rows, seen)]
        return rows if allowed is None else rows[allowed[rows]]

    def upsert(self, rows: Rows, vectors: np.ndarray) -> "Index":
        """Returns a new index, in which `rows` are replaced or added.

        The searcher is not rebuilt, so every search also computes the products with all
        changed rows. Call `build` again when many rows have changed.

        Args:
            rows: (n,) distinct rows; rows past the end must be consecutive.
            vectors: (n, d).

        Raises:
            ValueError: Rows repeat or leave a gap, or a vector is not finite.

        >>> index = Index(np.eye(2, dtype="float32")).upsert([2], [[3.0, 0.0]])
        >>> index.search(np.array([1.0, 0.0]), 1)[0].tolist()
        [2]
        """
        rows, vectors = np.asarray(rows, np.int64), np.asarray(vectors, np.float32)
        if vectors.shape != (len(rows), self.dim):
            raise ValueError(
                f"vectors must be ({len(rows)}, {self.dim}), got {vectors.shape}"
            )
        if not np.isfinite(vectors).all():
            raise ValueError("vectors must be finite numbers, got NaN or infinity")
        size = max(len(self), int(rows.max(initial=-1)) + 1)
        new = np.unique(rows)
        if len(new) < len(rows) or (rows < 0).any():
            raise ValueError("rows must be distinct and not negative")
        if (new >= len(self)).sum() != size - len(self):
            raise ValueError(f"rows must continue from {len(self)} without a gap")
        grown = np.zeros((size, self.dim), np.float32)
        grown[: len(self)] = self.vectors
        grown[rows] = vectors
        fresh = self.fresh if self.searcher is None else np.union1d(self.fresh, new)
        return replace(self, vectors=grown, fresh=fresh)


def build(
    vectors: np.ndarray,
    how: Callable[..., Searcher] | None = hnsw,
    queries: np.ndarray | None = None,
    k: int = 100,
    progress: Progress = lambda share: None,
    recall: float = RECALL,
) -> Index:
    """Builds an index over all vectors and measures its recall and latency.

    If the recall of a Faiss searcher is below `recall`, `build` warns and doubles the
    effort, up to three times.

    Args:
        vectors: (N, d) float32.
        how: `hnsw`, `ivf`, `pq`, `annoy`, or a `functools.partial` of one of these
            functions. If None, searches are exhaustive.
        queries: (Q, d) or (Q, K, d) user vectors for the measurement. If None, the
            queries are 200 evenly spaced item vectors. The recall for item vectors may
            differ from the recall for user vectors.
        k: Number of best items to compare with the exact result.
        progress: Function that is called with the share of the index built so far.
        recall: Required recall: the share of the exact k best items that the searcher
            finds.

    Raises:
        ValueError: A vector is not finite. The message names the row of the item.

    >>> index = build(np.eye(4, dtype="float32"), how=None, k=2)
    >>> index.report.recall
    1.0
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    bad = ~np.isfinite(vectors).all(axis=-1)
    if bad.any():
        raise ValueError(f"vectors must be finite, row {int(np.argmax(bad))} is not")
    if queries is None:
        queries = vectors[:: max(1, len(vectors) // SAMPLE)][:SAMPLE]
    begun = time.perf_counter()
    searcher = None
    if how is not None:
        knows = "asked" in inspect.signature(how).parameters
        options = {"asked": Asked(queries, k, recall)} if knows else {}
        searcher = how(vectors, progress, **options)
    seconds = time.perf_counter() - begun
    index = Index(vectors, searcher)
    if not len(vectors):
        return index
    return replace(index, report=measured(index, queries, k, seconds))


def measured(
    index: Index,
    queries: np.ndarray,
    k: int = 100,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Report:
    """Measures recall against `exact`, and the time of single searches.

    An item counts as found if its score equals the score of one of the exact k best
    items, up to rounding. So ties do not affect the recall.

    Args:
        index, queries, k: See `build`.
        seconds: Build time in seconds, which the report repeats.
        clock: Clock in seconds. With `time.thread_time`, other processes do not affect
            the measurement, but threads that a searcher starts are not counted.
    """
    _, truth = exact(queries, index.vectors, k)
    shares, times = [], []
    for query, wanted in zip(queries, truth, strict=True):
        begun = clock()
        _, scores = index.search(query, k)
        times.append(1e3 * (clock() - begun))
        shares.append(np.mean(scores >= wanted[-1] - 1e-5 * np.abs(wanted).max()))
    kind = "exact" if index.searcher is None else str(index.searcher)
    p50, p99 = np.percentile(times, [50, 99])
    return Report(kind, float(np.mean(shares)), k, float(p50), float(p99), seconds)
