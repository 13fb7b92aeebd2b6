"""Published versions of a retrieval model, switched atomically.

    ROOT/CURRENT            the name of the version to serve
    ROOT/versions/000007/   one version:
        tower.onnx          maps users' features to vectors without training code
        users.npz           table of users: features, and raw id <-> row
        items.npz           table of items: features, and raw id <-> row
        vectors.npy         (items, d) float32
        index.faiss         searcher of the vectors (or index.annoy, index.milvus, none)
        place.npy           row of each vector in index.faiss, if equal vectors share it
        fresh.npy           rows that have changed since the index was built
        histories.npy       the users' latest items, if known
        taken.npy           the items that each user took and their counts, if known
        taken_offsets.npy   where each user's items begin in taken.npy
        ranker.onnx         orders retrieved items, if published with the version
        manifest.json       sizes and SHA-256 of all files, the policy of repeats, and
                            entries of the publisher

A version is written to a hidden folder, synced to disk and renamed. Then one rename of
CURRENT switches to the new version. After a crash at any moment, the last version stays
in service. A reader loads tower, vectors and index from the same folder. If a publisher
is killed, the next publisher removes its files. The files of a version are
memory-mapped by their readers. So the files of a version are read-only, because a write
would break the readers.

ROOT may be the URL of an object store, such as s3://bucket/folder. In a store, a
version is uploaded completely before a single write of CURRENT. A reader copies the
version to disk and verifies its checksums (`debias.retrieval.serving.storage`).
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from debias.data.files import sha256
from debias.engine.scoring import Scorer, read_onnx
from debias.retrieval.data.interactions import FIRST, ID, FeatureTable
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.data.taken import Ragged, Taken
from debias.retrieval.serving.index import Index, Report, open_searcher
from debias.retrieval.serving.storage import ADVICE as _ADVICE
from debias.retrieval.serving.storage import MANIFEST, Disk, Storage, alone, storage
from debias.retrieval.serving.tower import UserTower, write_tower

SCHEMA = 1
KIND = "versions"  # folder of the versions
# `publish` cannot replace a damaged CURRENT, because it does not know what to keep.
_CHOOSE = "name the version to serve: debias retrieval rollback ROOT VERSION"


@dataclass(frozen=True)
class Version:
    """One published version, in memory.

    Attributes:
        name: Name of the version, which is the name of its folder.
        path: Path of the folder of the version. `publish` also accepts the file
            `tower.onnx` in this folder as a user tower.
        tower: Function from users' features to vectors.
        users, items: Feature tables. The vector of row r of `items` is
            `index.vectors[r]`.
        index: Index of the item vectors.
        histories: (users, L) int32 id codes of items, most recent first. None if no
            histories were published.
        manifest: Contents of `manifest.json`, with "created" and "extra".
        taken: All items that each user took, as rows of `items`. None if the items that
            users took are not known.
        ranker: Ranker of items by named features. None if the version has no ranker.
    """

    name: str
    path: Path
    tower: UserTower
    users: FeatureTable
    items: FeatureTable
    index: Index
    histories: np.ndarray | None
    manifest: dict[str, Any]
    ranker: Scorer | None = None
    taken: Taken | None = None

    @cached_property
    def repeat(self) -> Repeat:
        """Policy for items that a user took before."""
        return Repeat.of(self.manifest.get("repeat", "exclude"))

    @cached_property
    def stranger(self) -> np.ndarray | None:
        """(d,) vector of users without known features, or None to use the tower."""
        given = self.manifest.get("stranger")
        return None if given is None else np.array(given, np.float32)

    @cached_property
    def user_codes(self) -> dict[str, dict[str, int]]:
        """For each coded user feature, a dict from raw value to code."""
        return codes(self.users)

    @cached_property
    def item_codes(self) -> dict[str, dict[str, int]]:
        """For each coded item feature, a dict from raw value to code."""
        return codes(self.items)


def codes(table: FeatureTable) -> dict[str, dict[str, int]]:
    """For each coded feature of a table, a dict from raw value to code.

    >>> codes(FeatureTable.build({"id": ["a", "b"]}))
    {'id': {'a': 2, 'b': 3}}
    """
    return {
        name: {word: code for code, word in enumerate(words.tolist(), FIRST)}
        for name, words in table.vocabularies.items()
    }


def publish(
    root: str | Path,
    tower: Any,
    users: FeatureTable,
    items: FeatureTable,
    index: Index,
    *,
    histories: np.ndarray | None = None,
    taken: Ragged | None = None,
    repeat: str | Repeat = "exclude",
    ranker: str | Path | None = None,
    stranger: np.ndarray | None = None,
    extra: Mapping[str, Any] | None = None,
    keep: int = 3,
) -> str:
    """Writes a version and switches to it.

    Args:
        root: Folder of the versions, created if absent, or the URL of a store.
        tower: The user encoder of a retrieval model, or the path of a `tower.onnx` to
            publish again. An encoder is a Keras layer, and its conversion needs the
            extra `onnx`.
        users, items: Feature tables with "id". These tables encode the inputs of the
            tower.
        index: Index over the item vectors, in the order of the rows of `items`.
        histories: (users, L) id codes from `Interactions.histories`, for known users
            whose requests have no history. If None, no histories are published.
        taken: All items that users took, from `Interactions.seen`. If None, the items
            of the histories are published instead.
        repeat: Policy for items that users took: "exclude", "allow", or a `Repeat`.
        ranker: Path of a ranker that `debias export` wrote as ONNX. The version will
            contain a copy of the ranker.
        stranger: (d,) vector of users without known id, history and features, such as
            the mean user vector. If None, the tower computes this vector.
        extra: Additional JSON values to store in the version, such as the position in
            an event stream.
        keep: Number of versions to keep, including the new version. Versions that were
            rolled back are removed first.

    Returns:
        The name of the version.

    Raises:
        OSError: The store cannot be reached or refuses access, or the store or the disk
            is full.
        ValueError: The arguments do not fit together, a value is not valid text,
            `extra` is not JSON, or another process is publishing here. The version in
            service does not change.
    """
    place = storage(root)
    _check_parts(users, items, index, histories, keep)
    once = _checked_taken(taken, users, items)
    about: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "users": len(users),
        "items": len(items),
        "dimension": index.dim,
        "dtype": str(index.vectors.dtype),
        "index": index.report and _plain("index.report", index.report._asdict()),
        "repeat": Repeat.of(repeat)._asdict(),
        "stranger": None if stranger is None else _checked_stranger(stranger, index),
        "extra": _plain("extra", dict(extra or {})),
    }
    with alone(root):
        place.tidy(KIND)
        before = _served(place)
        name = f"{int((place.folders(KIND) or ['0'])[-1]) + 1:06d}"
        with place.new(f"{KIND}/{name}") as aside:
            _write(aside, tower, users, items, index, histories, once, ranker, about)
        if _served(place) != before:
            raise ValueError(f"{root}: another process published meanwhile; try again")
        place.switch(name)
        _drop_old(place, name, before or name, keep)
    return name


def _check_parts(
    users: FeatureTable,
    items: FeatureTable,
    index: Index,
    histories: np.ndarray | None,
    keep: int,
) -> None:
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    for side, table in (("users", users), ("items", items)):
        if ID not in table.columns:
            raise ValueError(f"{side} must have 'id', got {list(table.columns)}")
        for name, words in table.vocabularies.items():
            _check_text(f"{side}, column {name!r}", words)
    if len(items) != len(index):
        raise ValueError(
            f"index has {len(index)} items, but the table has {len(items)}"
        )
    if histories is not None and histories.shape[:1] != (len(users),):
        raise ValueError(f"histories must be ({len(users)}, L), got {histories.shape}")
    if histories is not None and histories.max(initial=0) >= items.size(ID):
        raise ValueError(
            f"histories hold the code {histories.max()}, but the table of items has "
            f"codes below {items.size(ID)}: give histories over these items"
        )


def _checked_stranger(vector: np.ndarray, index: Index) -> list[float]:
    vector = np.asarray(vector, np.float32)
    if vector.shape != (index.dim,) or not np.isfinite(vector).all():
        raise ValueError(
            f"stranger must be ({index.dim},) finite numbers, as the vectors of the "
            f"index are, got {vector.shape}"
        )
    return [float(x) for x in vector]


def _checked_taken(
    taken: Ragged | None, users: FeatureTable, items: FeatureTable
) -> Taken | None:
    if taken is None:
        return None
    rows, offsets = taken
    if len(offsets) != len(users) + 1:
        raise ValueError(f"taken must have {len(users)} users, got {len(offsets) - 1}")
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(items):
        raise ValueError(
            f"taken must hold rows of the table of {len(items)} items, got "
            f"{rows.min()} to {rows.max()}"
        )
    return Taken.of(rows, offsets)


def _check_text(where: str, words: np.ndarray) -> None:
    """Raises ValueError for lone surrogates, which JSON answers cannot hold."""
    for row, word in enumerate(words.tolist()):
        try:
            word.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(
                f"{where}: value {row}, {word!a}, holds a lone surrogate and is not "
                "valid text; read the source with its own encoding"
            ) from None


def _write(
    folder: Path,
    tower: Any,
    users: FeatureTable,
    items: FeatureTable,
    index: Index,
    histories: np.ndarray | None,
    taken: Taken | None,
    ranker: str | Path | None,
    about: dict[str, Any],
) -> None:
    """Writes all files of a version, the manifest last, and syncs them to disk."""
    if isinstance(tower, str | Path):
        shutil.copyfile(tower, folder / "tower.onnx")
    else:
        write_tower(tower, folder / "tower.onnx")
    _write_table(users, folder / "users.npz")
    _write_table(items, folder / "items.npz")
    np.save(folder / "vectors.npy", index.vectors)
    np.save(folder / "fresh.npy", index.fresh)
    if histories is not None:
        np.save(folder / "histories.npy", histories.astype(np.int32))
    if taken is not None:
        np.save(folder / "taken.npy", np.stack([taken.rows, taken.counts]))
        np.save(folder / "taken_offsets.npy", taken.offsets)
    if ranker is not None:
        _open_ranker(Path(ranker))
        shutil.copyfile(ranker, folder / "ranker.onnx")
    if index.searcher is not None:
        index.searcher.save(folder)
    _check_tower(UserTower(folder / "tower.onnx"), users, index)
    about["files"] = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.iterdir())
    }
    text = json.dumps({**about, "sha256": _seal(about)}, indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(file.stat().st_mode & ~0o222)


def _open_ranker(path: Path) -> Scorer:
    if not path.exists():
        raise ValueError(f"{path}: does not exist; debias export writes rankers")
    return read_onnx(path)


def _drop_old(place: Storage, name: str, before: str, keep: int) -> None:
    """Removes all but `keep` versions; rolled-back versions are removed first."""
    names = place.complete(KIND)
    kept = [one for one in names if one == name or int(one) <= int(before)]
    for old in set(names) - set(kept[-keep:]):
        place.drop(f"{KIND}/{old}")


def names(root: str | Path) -> list[str]:
    """Names of all versions, oldest first; [] if no version was published."""
    return storage(root).complete(KIND)


def current(root: str | Path) -> str:
    """Name of the version to serve.

    Raises:
        OSError: The store cannot be reached or refuses access.
        ValueError: No version was published here, or CURRENT is damaged.
    """
    place = storage(root)
    name = _served(place)
    if name is None:
        raise ValueError(
            f"{place.root}: holds no published version (there is no file CURRENT); "
            "publish one with debias retrieval publish"
        )
    return name


def _served(place: Storage) -> str | None:
    """The name in CURRENT; None if this file does not exist."""
    path = place.root / "CURRENT"
    try:
        name = place.read("CURRENT").decode().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except place.damage as error:
        raise ValueError(f"{path}: is damaged: {error}; {_CHOOSE}") from None
    if not name.isdigit():
        raise ValueError(
            f"{path}: is damaged: must hold the name of a version, only digits, got "
            f"{name[:50]!a}; {_CHOOSE}"
        )
    return name


def manifest(root: str | Path, name: str | None = None) -> dict[str, Any]:
    """The manifest of the current version, or of `name`.

    Raises:
        OSError: The store cannot be reached or refuses access.
        ValueError: The version does not exist, or its manifest is damaged.
    """
    name = current(root) if name is None else name
    return _manifest(*_kept(storage(root), name))


def _kept(place: Storage, name: str) -> tuple[Storage, str]:
    """The storage and key of a version; ValueError if the name is unknown."""
    if name not in (kept := place.complete(KIND)):
        raise ValueError(f"{place.root}: has no version {name!r}, only {kept}")
    return place, f"{KIND}/{name}"


def _manifest(place: Storage, key: str = "") -> dict[str, Any]:
    file = f"{key}/{MANIFEST}".lstrip("/")
    path = place.root / file
    try:
        about = json.loads(place.read(file))
        seal = about.pop("sha256")
    except place.damage as error:
        raise ValueError(f"{path}: is damaged: {error!r}; {_ADVICE}") from None
    if about.get("schema") != SCHEMA:
        raise ValueError(
            f"{path}: has schema {about.get('schema')}, but this library reads "
            f"{SCHEMA}: publish again"
        )
    if seal != _seal(about):
        raise ValueError(f"{path}: does not match its own checksum; {_ADVICE}")
    return about


def load(path: str | Path, name: str | None = None) -> Version:
    """Loads a version and checks every byte.

    Args:
        path: Folder or URL of the versions, or the folder of a single version.
        name: Name of the version to load. If None, the current version is loaded.

    Raises:
        OSError: The store cannot be reached or refuses access.
        ValueError: The version does not exist. A file is missing, is damaged, or does
            not fit the other files. The message names the file.
    """
    place = storage(path)
    if name is None and _is_version(place):
        return _read(Path(path))
    chosen = current(path) if name is None else name
    try:
        place, key = _kept(place, chosen)
        _manifest(place, key)  # its error names the store
        version = _read(place.folder(key))
        if name is None:
            place.remember(chosen)
        return version
    except (OSError, ValueError):
        # Meanwhile, a newer version may have been published and this one removed.
        if name is None and current(path) != chosen:
            return load(path)
        raise


def _is_version(place: Storage) -> bool:
    """Whether a path is the folder of a single version."""
    return isinstance(place, Disk) and (place.root / MANIFEST).exists()


def roll_back(root: str | Path, name: str | None = None) -> str:
    """Switches back to the previous version, or to `name`, and returns its name.

    The files of the version are verified first. Newer versions stay until the next
    version is published.

    Raises:
        OSError: The store cannot be reached or refuses access.
        ValueError: The version does not exist or is damaged. After an error, the
            version in service is unchanged.
    """
    with alone(root):
        if name is None:
            older = [one for one in names(root) if int(one) < int(current(root))]
            if not older:
                raise ValueError(f"{root}: has no version before {current(root)}")
            name = older[-1]
        place, key = _kept(storage(root), name)
        _read(place.folder(key))
        place.switch(name)
    return name


class Checked(NamedTuple):
    """The result of `check` for one version.

    Attributes:
        version: Name of the version.
        current: Whether CURRENT names this version.
        megabytes: Size of the files according to the manifest. None if the manifest
            cannot be read.
        damage: Description of the damage, which names the file. None if the version is
            intact.
    """

    version: str
    current: bool
    megabytes: float | None
    damage: str | None


def check(
    path: str | Path, progress: Callable[[float], None] = lambda share: None
) -> list[Checked]:
    """Checks every byte of every version in a folder, and opens each version.

    Args:
        path: Folder or URL of the versions, or the folder of a single version.
        progress: Function that is called with the share of versions checked so far.

    Raises:
        OSError: The store cannot be reached or refuses access.
        ValueError: The folder holds no version, or CURRENT is damaged or names a
            version that is absent.
    """
    place = storage(path)
    if _is_version(place):
        return [_checked(place, "", False)]
    served, kept = current(path), names(path)
    if served not in kept:
        raise ValueError(
            f"{place.root / 'CURRENT'}: names {served}, but there are only {kept}"
        )
    found = []
    for name in kept:
        found.append(_checked(place, f"{KIND}/{name}", name == served))
        progress(len(found) / len(kept))
    return found


def _checked(place: Storage, key: str, current: bool) -> Checked:
    name, size = (place.root / key).name, None
    try:
        files = _manifest(place, key)["files"]
        size = sum(file["bytes"] for file in files.values()) / 1e6
        with place.afresh(key) as folder:
            _read(folder)
    except (ValueError, OSError) as error:
        return Checked(name, current, size, str(error))
    return Checked(name, current, size, None)


def _check_files(folder: Path, about: Mapping[str, Any]) -> None:
    for file, expected in about["files"].items():
        path = folder / file
        if not path.exists():
            raise ValueError(f"{path}: is absent; {_ADVICE}")
        if path.stat().st_size != expected["bytes"]:
            raise ValueError(
                f"{path}: has {path.stat().st_size} bytes, but the manifest says "
                f"{expected['bytes']}; {_ADVICE}"
            )
        if sha256(path) != expected["sha256"]:
            raise ValueError(f"{path}: does not match its checksum; {_ADVICE}")
    for path in folder.iterdir():
        if path.name not in (*about["files"], MANIFEST) and path.name[0] != ".":
            raise ValueError(f"{path}: is not in the manifest; {_ADVICE}")


def _read(folder: Path) -> Version:
    about = _manifest(Disk(folder))
    _check_files(folder, about)
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    if vectors.shape != (about["items"], about["dimension"]):
        raise ValueError(
            f"{folder / 'vectors.npy'}: has shape {vectors.shape}, but the manifest "
            f"says {(about['items'], about['dimension'])}; {_ADVICE}"
        )
    users, items = (_read_table(folder / f"{side}.npz") for side in ("users", "items"))
    tower = UserTower(folder / "tower.onnx")
    try:
        index = Index(
            vectors,
            open_searcher(folder, about["dimension"]),
            np.load(folder / "fresh.npy"),
            about["index"] and Report(**about["index"]),
        )
        _check_tower(tower, users, index)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}; {_ADVICE}") from None

    def stored(name: str) -> Any:
        path = folder / name
        return np.load(path, mmap_mode="r") if path.exists() else None

    histories, taken = stored("histories.npy"), stored("taken.npy")
    if taken is not None:
        rows, counts = taken
        taken = Taken(rows, counts, stored("taken_offsets.npy"))
    path = folder / "ranker.onnx"
    ranker = _open_ranker(path) if path.exists() else None
    parts = tower, users, items, index, histories, about, ranker, taken
    return Version(folder.name, folder, *parts)


def _check_tower(tower: UserTower, users: FeatureTable, index: Index) -> None:
    """Tries the tower on a user without known features."""
    unknown = set(tower.inputs) - {*users.columns, "history"}
    if unknown:
        raise ValueError(
            f"tower reads {sorted(unknown)}, but users have {list(users.columns)}"
        )
    nobody = {
        name: np.zeros((1, *column.shape[1:]), column.dtype)
        for name, column in users.columns.items()
    }
    nobody["history"] = np.zeros((1, tower.length), np.int32)
    size = tower(nobody).shape[-1]
    if size != index.dim:
        raise ValueError(
            f"tower gives vectors of size {size}, but the index has {index.dim}"
        )


def _write_table(table: FeatureTable, path: Path) -> None:
    parts = {f"column/{name}": column for name, column in table.columns.items()}
    parts |= {
        f"words/{name}": np.asarray(w, str) for name, w in table.vocabularies.items()
    }
    np.savez(path, allow_pickle=False, **parts)


def _read_table(path: Path) -> FeatureTable:
    parts: dict[str, dict[str, np.ndarray]] = {"column": {}, "words": {}}
    with np.load(path) as saved:
        for key in saved.files:
            kind, _, name = key.partition("/")
            parts[kind][name] = saved[key]
    return FeatureTable(parts["column"], parts["words"])


def _plain(name: str, values: dict[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be JSON values: {error}") from None


def _seal(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
