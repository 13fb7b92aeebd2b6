"""Approximate search over a million vectors: recall, speed and build time.

Vectors are clustered, like the vectors of towers. The 2,000 cluster centres lie in a
16-dimensional subspace. The popularity of clusters follows Zipf's law, and items
scatter around the centres. All vectors have length 1. A user is the normalised sum of
three items, with noise. Independent normal vectors, which have no close neighbours, are
also measured.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from debias.retrieval.serving import index
from debias.retrieval.serving.index import Searcher

DIM, QUERIES, K = 64, 1_000, 100
CENTRES, RANK = 2_000, 16


def unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / length).astype(np.float32)


def clustered(
    rng: np.random.Generator, items: int, users: int
) -> tuple[np.ndarray, np.ndarray]:
    """(items, DIM) and (users, DIM) clustered vectors."""
    basis = rng.normal(size=(RANK, DIM))
    centres = unit(rng.normal(size=(CENTRES, RANK)) @ basis)
    share = 1 / np.arange(1, CENTRES + 1)
    cluster = rng.choice(CENTRES, items, p=share / share.sum())
    noise = rng.normal(size=(items, DIM)).astype(np.float32)
    vectors = unit(centres[cluster] + 0.6 / DIM**0.5 * noise)
    likes = vectors[rng.integers(items, size=(users, 3))].sum(axis=1)
    return vectors, unit(likes + 0.3 / DIM**0.5 * rng.normal(size=likes.shape))


def normal(
    rng: np.random.Generator, items: int, users: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random normal vectors, scaled to length 1."""
    return tuple(unit(rng.normal(size=(n, DIM))) for n in (items, users))  # type: ignore[return-value]


MAKERS: dict[str, tuple[Callable[..., tuple[np.ndarray, np.ndarray]], int]] = {
    "clustered-100k": (clustered, 100_000),
    "clustered-1M": (clustered, 1_000_000),
    "normal-100k": (normal, 100_000),
}
SEARCHERS: dict[str, Callable[..., Searcher]] = {
    "ann_hnsw": partial(index.hnsw, links=32, effort=768, build_effort=200),
    "ann_ivf": partial(index.ivf, probes=128),
    "ann_pq": partial(index.pq, probes=128),
    "ann_annoy": partial(index.annoy, trees=100),
}


@dataclass(frozen=True)
class Ann:
    """One row: an index of vectors of one kind, searched by one query at a time.

    Searches use one thread. Times are processor times, because wall-clock times depend
    on other processes.
    """

    row: str
    population: str

    def settings(self) -> dict[str, Any]:
        how = SEARCHERS[self.row]
        options = how.keywords if isinstance(how, partial) else {}
        return {"dim": DIM, "k": K, "queries": QUERIES, **options}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """Recall at K, milliseconds per search, build time, and megabytes on disk."""
        import faiss

        make, items = MAKERS[self.population]
        vectors, users = make(np.random.default_rng(seed), items, QUERIES)
        begun = time.process_time()
        searcher = SEARCHERS[self.row](vectors)
        seconds = time.process_time() - begun
        faiss.omp_set_num_threads(1)
        built = index.Index(vectors, searcher)
        index.measured(built, users[:100], K)  # warms up
        found = index.measured(built, users, K, clock=time.thread_time)
        with tempfile.TemporaryDirectory() as folder:
            searcher.save(Path(folder))
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
        return {
            f"recall@{K}": found.recall,
            "p50_ms": found.p50_ms,
            "p99_ms": found.p99_ms,
            "build_seconds": seconds,
            "file_mb": size / 1e6,
        }


CASES = tuple(Ann(row, population) for population in MAKERS for row in SEARCHERS)
