"""Milvus as the searcher of an index, embedded or as a cluster.

The argument `uri` switches from the embedded edition to a cluster. The embedded edition
stores its files in the version and unpacks them when the version is opened. A cluster
stores the collection itself, and the version stores only the name of the collection.
The environment variable MILVUS_TOKEN holds the access token of the cluster. The token
is never written to a file. The module needs the extra `milvus`.
"""

import json
import os
import shutil
import tarfile
import tempfile
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from debias.engine.extras import installed

PIECE = 2_000  # vectors per insertion, below the size limit of a message
FILE = "index.milvus"


class Milvus:
    """A Milvus collection, searched by inner product.

    Args:
        uri: URL of the cluster. If None, the embedded edition in `folder` is used.
        collection: Name of the collection.
        dim: d, the dimension of the vectors.
        size: N, the number of vectors.
        effort: Search parameter "ef", the number of candidates.
        folder: Folder with the files of the embedded edition. The folder is removed
            together with this object.
    """

    def __init__(
        self,
        uri: str | None,
        collection: str,
        dim: int,
        size: int,
        effort: int,
        folder: Path | None = None,
    ):
        self.uri, self.collection = uri, collection
        self.dim, self.size, self.effort = dim, size, effort
        self.where = str(uri if folder is None else folder / "items.db")
        if folder is not None:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.client = self._try(lambda: _client(self.where))

    def rows(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Finds rows, see `debias.retrieval.serving.index.Searcher`.

        Raises:
            ConnectionError: The cluster does not answer.
        """
        hits = self._try(
            lambda: self.client.search(
                self.collection,
                data=[*np.asarray(queries, np.float32)],
                limit=min(k, self.size),
                search_params={
                    "metric_type": "IP",
                    "params": {"ef": max(k, self.effort)},
                },
            )
        )
        found = np.full((len(queries), k), -1, np.int64)
        for row, named in zip(found, hits, strict=True):
            row[: len(named)] = [hit["id"] for hit in named]
        return found

    def save(self, folder: Path) -> None:
        about = {
            "uri": self.uri,
            "collection": self.collection,
            "size": self.size,
            "effort": self.effort,
        }
        with tarfile.open(folder / FILE, "w") as archive:
            text = folder / "about.json"
            text.write_text(json.dumps(about), encoding="utf-8")
            archive.add(text, text.name)
            text.unlink()
            if self.uri is None:
                self.client.flush(self.collection)
                archive.add(self.where, "items.db")

    def __str__(self) -> str:
        return f"Milvus, {self.uri or 'embedded'}"

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (OSError, ModuleNotFoundError):
            raise
        except Exception as error:  # errors of Milvus
            reason = str(error).splitlines()[0]
            raise ConnectionError(f"{self.where}: Milvus fails: {reason}") from error


def milvus(
    vectors: np.ndarray,
    progress: Callable[[float], None] = lambda share: None,
    *,
    uri: str | None = None,
    links: int = 32,
    effort: int = 384,
    build_effort: int = 200,
) -> Milvus:
    """Builds an HNSW graph for inner products in Milvus.

    When a version is removed, its collection stays in the cluster, because other
    programs may use the collection.

    Args:
        vectors: (N, d) float32.
        progress: Function that is called with the share of vectors inserted so far.
        uri: URL of a cluster, such as "http://milvus:19530". If None, the embedded
            edition is used.
        links, effort, build_effort: See `debias.retrieval.serving.index.hnsw`.

    Raises:
        ConnectionError: The cluster does not answer.
        ModuleNotFoundError: The extra `milvus` is not installed.
    """
    folder = _folder() if uri is None else None
    name = f"debias_{uuid.uuid4().hex}"
    made = Milvus(uri, name, vectors.shape[1], len(vectors), effort, folder)
    made._try(lambda: _fill(made, vectors, progress, links, build_effort))
    return made


def _fill(
    made: Milvus,
    vectors: np.ndarray,
    progress: Callable[[float], None],
    links: int,
    build_effort: int,
) -> None:
    from pymilvus import DataType

    client = made.client
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=made.dim)
    index = client.prepare_index_params()
    index.add_index(
        "vector",
        index_type="HNSW",
        metric_type="IP",
        params={"M": links, "efConstruction": build_effort},
    )
    client.create_collection(made.collection, schema=schema, index_params=index)
    for start in range(0, len(vectors), PIECE):
        rows = range(start, min(start + PIECE, len(vectors)))
        client.insert(
            made.collection, [{"id": row, "vector": vectors[row]} for row in rows]
        )
        progress(rows.stop / len(vectors))
    client.flush(made.collection)
    client.load_collection(made.collection)


def open_milvus(path: Path, dim: int) -> Milvus:
    """Opens a collection that `Milvus.save` wrote.

    Raises:
        ValueError: The file is damaged.
        ConnectionError: The cluster does not answer, or lacks the collection.
    """
    folder = _folder()
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        uri, size, effort = about["uri"], about["size"], about["effort"]
        name = about["collection"]
    except (tarfile.TarError, OSError, ValueError, KeyError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ValueError(f"{path}: is not an index of Milvus: {error}") from None
    if uri is not None:
        shutil.rmtree(folder)
    made = Milvus(uri, name, dim, size, effort, folder if uri is None else None)
    made._try(lambda: made.client.load_collection(name))
    return made


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="debias-milvus-"))


def _client(where: str) -> Any:
    pymilvus = installed("pymilvus", "milvus")
    if "://" not in where:
        installed("milvus_lite", "milvus")  # which pymilvus does not require
    return pymilvus.MilvusClient(where, token=os.environ.get("MILVUS_TOKEN", ""))
