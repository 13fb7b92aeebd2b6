"""Reads LETOR files, such as MSLR-WEB30K, Yahoo and Istella.

A line describes an item: `grade qid:query index:value ... # comment`. scikit-learn
parses the file, and this module checks the resulting arrays. If a check fails, the file
is read again line by line to find the faulty line. If query ids are not numbers, the
queries are numbered. Item names are read from the comments. A file is parsed only once:
its arrays are cached as memory-mapped .npy files, in a folder whose name contains a
hash of the file.
"""

import bz2
import gzip
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from debias.data.files import cached, check_regular, content_hash
from debias.data.ranking import RankingData, runs
from debias.data.text import quoted

_FORMAT = 2  # version of the cached copies; increase it if their content changes
_LARGE = 1 << 30  # bytes of features, from which nearly empty matrices are rejected
_LARGEST = float(np.finfo(np.float32).max)
_GROUP_SUFFIXES = (".query", ".group")
_SPLITS = {
    "train": ("train", "training"),
    "vali": ("vali", "valid", "validation", "val", "dev"),
    "test": ("test", "testing"),
}
_PACKED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
_BOM = b"\xef\xbb\xbf"
_QID = re.compile(rb"(?<=\sqid:)[^\s#]+")
_NAMED = re.compile(r"\bdocid\s*=\s*(\S+)")  # in comments of LETOR 3.0 and 4.0
_DATA_SUFFIXES = ("", ".txt", ".svm", ".svmlight", ".libsvm", ".letor", ".dat")


def read_letor(
    path: str | Path,
    feature_count: int | None = None,
    zero_based: bool = False,
    max_grade: int = 4,
    cache: str | Path | None = None,
) -> RankingData:
    """Reads one LETOR file, plain or compressed by gzip or bzip2.

    `qid:` gives the query of an item, as a number or text. A file without `qid:` needs
    a second file with the number of items of each query. The second file has the same
    name plus .query (LightGBM) or .group. An item with a comment `docid = NAME` has the
    name NAME; otherwise, its name is the whole comment.

    Args:
        path: The file.
        feature_count: Number of features of an item. Features that a line leaves out
            are 0. None means the highest feature index in the file.
        zero_based: Whether the first feature has index 0 instead of 1.
        max_grade: Highest grade; grades are whole numbers from 0.
        cache: Folder for parsed copies. None means $DEBIAS_CACHE, or else the user's
            cache folder.

    Raises:
        ValueError: The file is empty, a line cannot be parsed, the items of a query are
            not consecutive, or a grade is outside 0..max_grade. Another reason is a
            feature that is not finite, or whose index `feature_count` and `zero_based`
            do not allow. The message names the file and the line.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> file = Path(folder) / "train.txt"
    >>> _ = file.write_text("2 qid:7 1:0.5 3:1 # best\\n0 qid:7 2:4\\n1 qid:9 1:3\\n")
    >>> data = read_letor(file, cache=folder)
    >>> data
    RankingData(queries=2, items=3, feature_count=3, max_grade=4)
    >>> data.features[0].tolist(), data.labels.tolist(), data.qid.tolist()
    ([0.5, 0.0, 1.0], [2, 0, 1], [7, 9])
    >>> data.item_id.tolist()
    ['best', '', '']
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, see read_letor_folder")
    check_regular(path)
    if feature_count is not None and feature_count < 1:
        raise ValueError(f"feature_count must be at least 1, got {feature_count}")
    groups = _group_file(path)
    content = content_hash(path, *([] if groups is None else [groups]))
    key = f"letor{_FORMAT}-{content}-{feature_count}-{int(zero_based)}-{max_grade}"
    parsed: list[RankingData] = []

    def build(folder: Path) -> None:
        parsed.append(_parse(path, groups, feature_count, zero_based, max_grade))
        for name in ("features", "labels", "offsets", "qid", "item_id"):
            value = getattr(parsed[0], name)
            if value is not None:
                np.save(folder / f"{name}.npy", value)

    try:
        folder = cached(key, build, cache)
    except OSError as error:
        if not parsed:
            parsed.append(_parse(path, groups, feature_count, zero_based, max_grade))
        warnings.warn(
            f"{path}: was parsed, but its copy cannot be written: {error}", stacklevel=2
        )
        return parsed[0]
    optional: dict[str, Any] = {
        name: _mapped(folder / f"{name}.npy")
        for name in ("qid", "item_id")
        if (folder / f"{name}.npy").exists()
    }
    return RankingData.trusted(
        _mapped(folder / "features.npy"),
        _mapped(folder / "labels.npy"),
        _mapped(folder / "offsets.npy"),
        max_grade=max_grade,
        **optional,
    )


def read_letor_folder(
    folder: str | Path,
    feature_count: int | None = None,
    zero_based: bool = False,
    max_grade: int = 4,
    cache: str | Path | None = None,
) -> dict[str, RankingData]:
    """Reads a folder of LETOR files, one per split, with equal numbers of features.

    A data file has no suffix, or the suffix .txt, .svm, .svmlight, .libsvm, .letor or
    .dat, optionally followed by .gz or .bz2. A word in the file name determines the
    split. The words train and training mean train; vali, valid, validation, val and dev
    mean vali; test and testing mean test. The suffix of a data file may also be a word
    for a split, as in `rank.train`. For example, `Fold1/train.txt` and
    `set1.test.txt.gz` are read, and other files are ignored. If no file name contains a
    word for a split, each data file except README is a split with the name of the file.

    Args:
        folder: The folder; subfolders are ignored.
        feature_count, zero_based, max_grade, cache: See `read_letor`. Without
            `feature_count`, features with the value 0 are added until all splits have
            as many features as the widest split.

    Returns:
        Ranking data by name of the split. The order is train, vali and test; splits
        with other names are sorted by file name.

    Raises:
        ValueError: The folder has no data file, two files belong to the same split, a
            file name has words for two splits, or `read_letor` fails.
    """
    files = _split_files(Path(folder))
    read = {
        split: read_letor(file, feature_count, zero_based, max_grade, cache)
        for split, file in files.items()
    }
    widest = max(data.feature_count for data in read.values())
    return {split: _widened(data, widest) for split, data in read.items()}


def _widened(data: RankingData, feature_count: int) -> RankingData:
    more = feature_count - data.feature_count
    if more == 0:
        return data
    return data.with_trusted(features=np.pad(data.features, ((0, 0), (0, more))))


def _split_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder")
    words = {word: split for split, names in _SPLITS.items() for word in names}
    files = [file for file in sorted(folder.iterdir()) if _may_be_data(file, words)]
    found: dict[str, Path] = {}
    for file in files:
        parts = re.split(r"[^a-z]+", file.name.lower())
        named = {words[word] for word in parts if word in words}
        if not named:
            continue
        if len(named) > 1:
            raise ValueError(
                f"{file}: its name must contain the name of one part, but contains "
                f"{' and '.join(sorted(named))}"
            )
        split = named.pop()
        if split in found:
            raise ValueError(
                f"{folder}: both {found[split].name} and {file.name} are {split}"
            )
        found[split] = file
    if found:
        return {split: found[split] for split in _SPLITS if split in found}
    for file in files:
        if not file.name.lower().startswith("readme"):
            found[_plain(file).stem] = file
    if not found:
        inner = " ".join(sorted(path.name for path in folder.iterdir())[:10])
        raise ValueError(f"{folder}: holds no LETOR file, only {inner or 'nothing'}")
    return found


def _may_be_data(file: Path, words: dict[str, str]) -> bool:
    suffix = _plain(file).suffix
    known = suffix in _DATA_SUFFIXES or suffix[1:].lower() in words
    return file.is_file() and file.name[0] != "." and known


def _plain(file: Path) -> Path:
    """The path without the suffix of a compression."""
    return file.with_suffix("") if file.suffix in _PACKED else file


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except ValueError as error:
        raise ValueError(
            f"{path}: is a damaged copy; delete its folder: {error}"
        ) from error


def _group_file(path: Path) -> Path | None:
    names = (_plain(path).name + suffix for suffix in _GROUP_SUFFIXES)
    return next((path.with_name(n) for n in names if path.with_name(n).is_file()), None)


def _parse(
    path: Path,
    groups: Path | None,
    feature_count: int | None,
    zero_based: bool,
    max_grade: int,
) -> RankingData:
    """Parses with scikit-learn. On failure, `_find_fault` explains the error."""
    try:
        features, labels, query, names = _loaded(path, feature_count, zero_based)
        if len(labels) == 0:
            raise ValueError("holds no item")
        if features.nnz == 0 and feature_count is None:
            raise ValueError("has no feature on any line: give feature_count")
        if not (np.isfinite(labels) & (labels == np.rint(labels))).all():
            raise ValueError("grades must be whole numbers")
        _check_density(path, features, feature_count)
        offsets, qid = _queries(query, groups, len(labels), names)
        with np.errstate(invalid="ignore"):  # grades that are no 64-bit integers
            labels = labels.astype(np.int64)
        return RankingData(
            features.toarray(),
            labels,
            offsets,
            qid,
            max_grade,
            item_id=_item_ids(path, len(labels)),
        )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _not_whole(path, error) from error
    except OSError as error:  # bz2 raises an error without number for damaged files
        if error.errno is not None:
            raise
        raise _not_whole(path, error) from error
    except (ValueError, OverflowError) as error:
        _find_fault(path, feature_count, zero_based, max_grade)
        raise ValueError(f"{path}: {error}") from error


def _not_whole(path: Path, error: Exception) -> ValueError:
    kind = {".bz2": "bzip2"}.get(path.suffix, "gzip")
    return ValueError(
        f"{path}: is not a complete {kind} file; write or copy it again ({error})"
    )


def _loaded(
    path: Path, feature_count: int | None, zero_based: bool
) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray | None]:
    """Features, grades and queries of the lines, and query names if they are text."""
    from sklearn.datasets import load_svmlight_file

    def load(lines: Any) -> Any:
        return load_svmlight_file(
            lines,
            n_features=feature_count,
            dtype=np.float32,
            zero_based=zero_based,
            query_id=True,
        )

    try:
        with _opened(path) as file:
            return *load(file), None
    except (ValueError, OverflowError):
        with _opened(path) as file:
            numbered = _Numbered(file)
            if not numbered.needed():
                raise
        with _opened(path) as file:
            numbered = _Numbered(file)
            return *load(numbered), np.array(list(numbered.names))


class _Numbered:
    """Lines of a file in which query names are numbered by first appearance."""

    def __init__(self, file: BinaryIO) -> None:
        self.names: dict[str, int] = {}
        self.read = file.read  # scikit-learn accepts objects with `read` as files
        self._file = file

    def needed(self) -> bool:
        """Whether some query id is not a 64-bit integer."""
        for line in self._file:
            found = _QID.search(line.partition(b"#")[0])
            if found and not _is_number(found[0]):
                return True
        return False

    def __iter__(self) -> Iterator[bytes]:
        for line in self._file:
            yield _QID.sub(self._number, line.partition(b"#")[0], count=1)

    def _number(self, found: re.Match[bytes]) -> bytes:
        name = found[0].decode()
        return str(self.names.setdefault(name, len(self.names))).encode()


def _is_number(word: bytes) -> bool:
    try:
        return abs(int(word)) < 1 << 63
    except ValueError:
        return False


def _item_ids(path: Path, items: int) -> np.ndarray | None:
    """(items,) names from the comments of lines; None if no line has a comment.

    A line without a comment has the name "".
    """
    ids = []
    with _opened(path) as file:
        for line in file:
            words, _, comment = line.partition(b"#")
            if words.strip():
                text = comment.decode(errors="replace").strip()
                named = _NAMED.search(text)
                ids.append(named[1] if named else text)
    return np.array(ids) if any(ids) and len(ids) == items else None


def _check_density(path: Path, features: Any, feature_count: int | None) -> None:
    """Raises ValueError if one high index causes a large matrix with over 99% zeros."""
    items, count = features.shape
    size = 4 * items * count
    if feature_count is None and size > _LARGE and 100 * features.nnz < items * count:
        far = int(features.indices.max())
        row = int(np.searchsorted(features.indptr, features.indices.argmax(), "right"))
        number = next(islice(_lines(path), row - 1, None))[0]
        raise ValueError(
            f"line {number} has a feature index that makes {far + 1} features per "
            f"item, which take {size / 1e9:.1f} GB of memory and are nearly all 0; "
            "renumber the features, or give feature_count"
        )


def _queries(
    query: np.ndarray, groups: Path | None, items: int, names: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Offsets and ids of queries, from the qid of each line or the file `groups`."""
    offsets, qid = runs(query) if len(query) else (None, None)
    if qid is not None and names is not None:
        qid = names[qid]
    if groups is None:
        if offsets is None:
            raise ValueError("lines have no qid, and no file beside it has group sizes")
        return offsets, qid
    sizes = _group_sizes(groups)
    if sum(sizes) != items:
        raise ValueError(
            f"has {items} lines, but the sizes in {groups.name} sum to {sum(sizes)}"
        )
    from_sizes = np.cumsum([0, *sizes])
    if offsets is not None and not np.array_equal(offsets, from_sizes):
        raise ValueError(f"its qid and the sizes in {groups.name} differ")
    return from_sizes, qid


def _group_sizes(groups: Path) -> list[int]:
    sizes = []
    for number, line in enumerate(groups.read_text().splitlines(), start=1):
        if line.strip():
            if not (line.strip().isdecimal() and int(line) > 0):
                raise ValueError(
                    f"line {number} of {groups.name} must be a size from 1, "
                    f"got {line.strip()!r}"
                )
            sizes.append(int(line))
    return sizes


def _find_fault(
    path: Path, feature_count: int | None, zero_based: bool, max_grade: int
) -> None:
    """Raises ValueError for the first faulty line, if there is one."""
    first = 0 if zero_based else 1
    last = None if feature_count is None else feature_count - 1 + first
    seen: set[str] = set()
    current: str | None = None
    has_qid: bool | None = None
    for number, words in _lines(path):
        try:
            _check_grade(words[0], max_grade)
            given = len(words) > 1 and words[1].startswith("qid:")
            if has_qid not in (None, given):
                raise ValueError("some lines have a qid and some have none")
            has_qid = given
            if given:
                qid = words[1][4:]
                if not qid:
                    raise ValueError("qid: must name a query")
                if qid != current and qid in seen:
                    raise ValueError(
                        f"qid {qid} starts again, so its lines are not consecutive"
                    )
                seen.add(qid)
                current = qid
            _check_features(words[1 + given :], first, last)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if has_qid is None:
        raise ValueError(f"{path}: holds no item")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number, counted from 1, and the words of each line that holds an item."""
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            words = line.partition(b"#")[0].decode(errors="replace").split()
            if words:
                yield number, words


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file, decompressed and without its byte order mark."""
    with _PACKED.get(path.suffix, open)(path, "rb") as file:
        if file.peek(len(_BOM)).startswith(_BOM):
            file.read(len(_BOM))
        yield file


def _parsed(word: str, kind: Callable[[str], Any], rule: str) -> Any:
    try:
        return kind(word)
    except ValueError:
        raise ValueError(f"{rule}, got {quoted(word)}") from None


def _check_grade(word: str, max_grade: int) -> None:
    grade = _parsed(word, float, "a grade must be a number")
    if grade not in range(max_grade + 1):
        raise ValueError(f"grade must be a whole number in 0..{max_grade}, got {word}")


def _check_features(words: list[str], first: int, last: int | None) -> None:
    before = first - 1
    for word in words:
        index_text, colon, value_text = word.partition(":")
        if not colon:
            raise ValueError(f"a feature must be index:value, got {quoted(word)}")
        index = _parsed(index_text, int, "a feature's index must be a whole number")
        value = _parsed(value_text, float, f"feature {index} must be a number")
        if index < first:
            raise ValueError(
                f"feature indices start at {first}, got {index} (see zero_based)"
            )
        if last is not None and index > last:
            raise ValueError(f"feature indices end at {last}, got {index}")
        if index <= before:
            raise ValueError(f"feature indices must ascend, got {index} after {before}")
        if not abs(value) <= _LARGEST:
            raise ValueError(f"feature {index} must be finite in float32, got {value}")
        before = index
