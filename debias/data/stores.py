"""Paths and URLs of files on disk and in object stores.

URLs have the form that Arrow's file systems use: s3://bucket/key, gs://bucket/key,
file:///path. Options follow a question mark, such as
s3://bucket/key?endpoint_override=localhost:9000&scheme=http. Credentials come from the
environment, as for the stores' own tools. A URL such as gs://anonymous@bucket/key needs
no credentials.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import pyarrow as pa
from pyarrow import fs

_URL = re.compile(r"^([a-z][a-z0-9+.]*):/{1,2}(?=[^/])", re.I)
_STORES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
_GOOGLE = ("gs", "gcs")
_PATIENCE = 30  # seconds to try a Google store; Arrow's default is 15 minutes
_TRUST = "set SSL_CERT_FILE to a PEM file with the authority of its certificate"
_WHO_MAY = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, of "
    "somebody who may use it",
    "gs": "run gcloud auth application-default login, or set "
    "GOOGLE_APPLICATION_CREDENTIALS to the key file of somebody who may use it; a "
    "public bucket is gs://anonymous@BUCKET",
}
_WHO_MAY["gcs"] = _WHO_MAY["gs"]


class _Stat(NamedTuple):
    st_size: int
    st_mtime_ns: int


def store_url(path: str | Path) -> str | None:
    """The URL of a store, even if `Path` removed a slash; None for a local path.

    >>> store_url("s3://bucket/key"), store_url(Path("s3://bucket/key"))
    ('s3://bucket/key', 's3://bucket/key')
    >>> store_url("log.parquet")
    """
    found = _URL.match(str(path))
    if found is None or found[1].lower() not in _STORES:
        return None
    return f"{found[1].lower()}://{str(path)[found.end() :]}"


@dataclass(frozen=True, order=True)
class Remote:
    """A file or folder of an object store, with the most used methods of `Path`.

    Attributes:
        scheme: Scheme of the URL.
        path: Bucket and key.
        store: The file system.
    """

    scheme: str
    path: str
    store: fs.FileSystem = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix

    @property
    def suffixes(self) -> list[str]:
        return PurePosixPath(self.path).suffixes

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.path).parts

    def with_suffix(self, suffix: str) -> "Remote":
        path = PurePosixPath(self.path).with_suffix(suffix)
        return Remote(self.scheme, str(path), self.store)

    def resolve(self) -> "Remote":
        return self

    @cached_property
    def _info(self) -> fs.FileInfo:
        with naming_store(self):
            return self.store.get_file_info(self.path)

    def exists(self) -> bool:
        return self._info.type != fs.FileType.NotFound

    def is_dir(self) -> bool:
        return self._info.type == fs.FileType.Directory

    def is_file(self) -> bool:
        return self._info.type == fs.FileType.File

    def stat(self) -> _Stat:
        return _Stat(self._info.size or 0, self._info.mtime_ns or 0)

    def inside(self, recursive: bool = False) -> "list[Remote]":
        """The content of the folder, sorted by name; optionally recursive."""
        # In Google's stores, Arrow lists a folder only if an object has its name.
        whole = recursive or self.scheme in _GOOGLE
        chosen = fs.FileSelector(self.path, allow_not_found=True, recursive=whole)
        with naming_store(self):
            found = {info.path for info in self.store.get_file_info(chosen)}
        if not recursive:
            depth = len(self.parts) + 1
            found = {"/".join(PurePosixPath(path).parts[:depth]) for path in found}
        return sorted(Remote(self.scheme, path, self.store) for path in found)

    def iterdir(self) -> "Iterator[Remote]":
        return iter(self.inside())

    def glob(self, pattern: str) -> "list[Remote]":
        """Files in the folder whose names match `pattern`."""
        return [
            each for each in self.inside() if PurePosixPath(each.path).match(pattern)
        ]

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        with naming_store(self):
            return self.store.open_input_file(self.path)

    def __truediv__(self, name: str) -> "Remote":
        return Remote(self.scheme, f"{self.path}/{name}", self.store)

    def read_bytes(self) -> bytes:
        with naming_store(self), self.store.open_input_stream(self.path) as file:
            return file.read()

    def put(self, source: BinaryIO) -> None:
        """Writes the file atomically."""
        with (
            naming_store(self),
            self.store.open_output_stream(self.path, compression=None) as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)

    def remove(self) -> None:
        """Removes the folder and its contents, if it exists."""
        with naming_store(self):
            if self.store.get_file_info(self.path).type == fs.FileType.NotFound:
                return
            if self.scheme in _GOOGLE:  # a folder need not be an object there
                for each in self.inside(recursive=True):
                    with suppress(FileNotFoundError):
                        self.store.delete_file(each.path)
            else:
                self.store.delete_dir(self.path)


AnyPath: TypeAlias = Path | Remote


@contextmanager
def naming_store(place: "Remote | str") -> Iterator[None]:
    """Context manager that adds the URL and advice to the errors of a store."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        refusal = refused(str(place), error)
        if refusal is None:
            raise
        raise refusal from error


def refused(url: str, error: Exception) -> OSError | None:
    """Converts an error of a store to a clearer error; None for other errors."""
    text, scheme = str(error), url.partition(":")[0]
    if found := re.search(r"last message of (.*?)(?: error_info=|$)", text):
        text = f"{found[1]}, google::cloud"  # the rest repeats this for programmers
    if "NO_SUCH_BUCKET" in text or "NoSuchBucket" in text:
        return FileNotFoundError(f"{url}: the store has no such bucket")
    if re.search(r"HTTP status 507|StorageFull|QuotaExceeded|Insufficient", text):
        return OSError(errno.ENOSPC, f"{url}: the store is full: {text}")
    gone = r"NOT_FOUND|status\D{1,8}404"
    if isinstance(error, FileNotFoundError) or re.search(gone, text):
        return FileNotFoundError(f"{url}: no such file or folder in the store")
    denied = r"ACCESS_DENIED|INVALID_?ACCESS_?KEY|SIGNATURE|status\D{1,8}40[13]|OAuth2"
    if isinstance(error, PermissionError) or re.search(denied, text, re.I):
        advice = _WHO_MAY.get(scheme, "give those of somebody who may use it")
        what = "there are no" if "OAuth2" in text else "the store refuses these"
        return PermissionError(f"{url}: {what} credentials; {advice}")
    if re.search(r"AWS Error|NETWORK_CONNECTION|curlCode|google::cloud", text):
        advice = f"; {_TRUST}" if "curlCode: 60" in text else ""
        return OSError(f"{url}: the store cannot be reached or read: {text}{advice}")
    return None


def located(path: "str | Path | Remote") -> AnyPath:
    """Converts a path or URL to a `Path` or a `Remote`; the file need not exist.

    Raises:
        OSError: The store cannot be reached.
        ValueError: The URL is incomplete, or contains credentials.

    >>> located("log.parquet")
    PosixPath('log.parquet')
    """
    if isinstance(path, Remote):
        return path
    url = store_url(path)
    if url is None:
        return Path(path)
    scheme, _, rest = url.partition("://")
    who, at, _ = re.split("[/?]", rest, maxsplit=1)[0].rpartition("@")
    if at and (scheme not in _GOOGLE or who != "anonymous"):
        raise ValueError(
            f"{scheme}://...: a URL must not contain credentials; put them into the "
            "environment"
        )
    if scheme in _GOOGLE and "retry_limit_seconds=" not in url:
        url += f"{'&' if '?' in url else '?'}retry_limit_seconds={_PATIENCE}"
    try:
        store, key = fs.FileSystem.from_uri(url)
    except (pa.ArrowException, OSError) as error:
        shown = url.partition("?")[0]
        if (refusal := refused(shown, error)) is not None:
            raise refusal from error
        raise ValueError(f"{shown}: is not the URL of a store: {error}") from error
    return Remote(scheme, key.rstrip("/"), store)


def readable(path: AnyPath) -> Any:
    """What Arrow reads a file from: a local path, or an open file of a store."""
    return path.open() if isinstance(path, Remote) else path


def name_of(path: str | Path) -> str:
    """The last component of a path or URL.

    >>> name_of("s3://bucket/log.parquet?scheme=http"), name_of("a/b.csv")
    ('log.parquet', 'b.csv')
    """
    return PurePosixPath((store_url(path) or str(path)).partition("?")[0]).name


def whole_path(path: str | Path) -> str:
    """Makes a path absolute; URLs are unchanged.

    >>> whole_path("s3://bucket/key"), whole_path("/a")
    ('s3://bucket/key', '/a')
    """
    return store_url(path) or os.path.abspath(path)
