"""Tests of debias.retrieval.serving.milvus: the embedded edition behind an index."""

import socket

import numpy as np
import pytest

from debias.retrieval.serving import index as module
from debias.retrieval.serving import versions
from debias.retrieval.serving.index import Index, exact, found_share, open_searcher
from debias.retrieval.serving.milvus import milvus
from debias.retrieval.serving.query import retrieve
from tests.debias.retrieval import worlds

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Milvus and what it imports

VECTORS = np.random.default_rng(0).normal(size=(300, 8)).astype("float32")


@pytest.fixture(scope="module")
def made():
    shares = []
    made = milvus(VECTORS, shares.append)
    assert shares == [1.0]
    return made


def test_it_finds_what_comparing_all_finds(made):
    queries = VECTORS[:20] + 0.1
    assert found_share(made, VECTORS, queries, 10) > 0.95
    rows = made.rows(queries[:1], 400)  # more than there are
    assert rows.shape == (1, 400) and set(rows[0]) == {-1, *range(300)}


def test_a_saved_one_answers_alike_as_often_as_it_is_opened(made, tmp_path):
    made.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.milvus"]
    read = [open_searcher(tmp_path, 8) for _ in range(2)]
    for one in read:
        assert (one.dim, one.size, str(one)) == (8, 300, "Milvus, embedded")
        assert (one.rows(VECTORS[:5], 7) == made.rows(VECTORS[:5], 7)).all()


def test_a_version_with_it_is_published_and_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EXACT", 0)
    found = worlds.vectors()
    index = Index(found, milvus(found))
    versions.publish(tmp_path / "root", *worlds.parts(tmp_path, index=index))
    version = versions.load(tmp_path / "root")
    assert (version.path / "index.milvus").exists()
    answer = retrieve(version, {"age": 1.0}, k=2)
    rows, _ = exact(np.eye(1, 4, dtype="float32"), found, 2)
    assert answer.items == [f"1-{row}" for row in rows[0]]


def test_what_is_damaged_or_not_there(tmp_path):
    (tmp_path / "index.milvus").write_text("no")
    with pytest.raises(ValueError, match=r"index\.milvus: is not an index of Milvus"):
        open_searcher(tmp_path, 8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"{uri}: Milvus fails"):
        milvus(VECTORS, uri=uri)
