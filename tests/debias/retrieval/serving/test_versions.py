"""Tests of debias.retrieval.serving.versions and debias.retrieval.serving.tower."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from debias.data.files import sha256
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.serving import versions
from debias.retrieval.serving.index import Index, build, hnsw
from debias.retrieval.serving.query import retrieve
from debias.retrieval.serving.tower import UserTower
from tests.debias.retrieval import worlds

ROOT = Path(__file__).parents[4]


@pytest.fixture
def root(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    return tmp_path / "root"


def hidden(root):
    return [path.name for path in root.rglob("*.part")]


def test_what_was_published_is_loaded(root, tmp_path):
    index = build(worlds.vectors(2), hnsw, k=3).upsert([5], [[9, 9, 9, 9]])
    made = worlds.parts(tmp_path, 2, index=index)
    name = versions.publish(root, *made, extra={"offset": 7}, keep=5)
    read = versions.load(root)
    assert name == read.name == versions.current(root) == "000002"
    assert (read.index.vectors == index.vectors).all()
    assert read.index.fresh.tolist() == [5] and read.index.report == index.report
    assert str(read.index.searcher) == "IndexHNSWFlat"
    for side, table in (("users", made[1]), ("items", made[2])):
        one = getattr(read, side)
        assert one.schema == table.schema and one.columns.keys() == table.columns.keys()
        for name, column in table.columns.items():
            assert (one.columns[name] == column).all()
        for name, words in table.vocabularies.items():
            assert one.vocabularies[name].tolist() == words.tolist()
    assert read.histories is None and read.tower.length == 3
    assert read.manifest["extra"] == versions.manifest(root)["extra"] == {"offset": 7}
    assert read.manifest["dimension"] == 4 and read.manifest["dtype"] == "float32"
    assert versions.load(root, "000001").histories.tolist() == [[3, 0, 0], [0, 0, 0]]


def test_the_last_few_are_kept_and_any_of_them_can_be_served_again(root, tmp_path):
    for number in (2, 3, 4):
        worlds.publish(root, tmp_path, number, keep=3)
    assert versions.names(root) == ["000002", "000003", "000004"]
    assert versions.roll_back(root) == versions.current(root) == "000003"
    assert versions.roll_back(root) == "000002"
    with pytest.raises(ValueError, match="has no version before 000002"):
        versions.roll_back(root)
    assert versions.roll_back(root, "000004") == versions.load(root).name == "000004"
    versions.roll_back(root, "000002")
    # The next drops those rolled back from: the way back leads to the good one.
    assert worlds.publish(root, tmp_path, 5, keep=3) == "000005"
    assert versions.names(root) == ["000002", "000005"]
    assert worlds.publish(root, tmp_path, 6, keep=1) == "000006"
    assert versions.names(root) == ["000006"] and hidden(root) == []


def test_a_reader_that_is_overtaken_reads_the_newer(root, tmp_path, monkeypatch):
    read = versions._read

    def overtaken(*arguments):
        monkeypatch.setattr(versions, "_read", read)
        worlds.publish(root, tmp_path, 2, keep=1)
        return read(*arguments)

    monkeypatch.setattr(versions, "_read", overtaken)
    assert versions.load(root).name == "000002"


FILES = ["tower.onnx", "users.npz", "items.npz", "vectors.npy", "fresh.npy"]


@pytest.mark.parametrize("file", [*FILES, "histories.npy"])
@pytest.mark.parametrize("harm", ["flipped", "cut", "absent"])
def test_a_damaged_file_is_named(root, file, harm):
    path = root / "versions" / "000001" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "absent":
        path.unlink()
    else:
        worlds.overwrite(path, bytes(content if harm == "flipped" else content[:-1]))
    said = {
        "flipped": "its checksum",
        "cut": "the manifest says",
        "absent": "is absent",
    }
    with pytest.raises(ValueError, match=rf"{file}: .*{said[harm]}.*; roll back"):
        versions.load(root)


def test_check_reads_every_version_and_names_what_is_damaged(root, tmp_path):
    for number in (2, 3):
        worlds.publish(root, tmp_path, number)
    versions.roll_back(root)
    found = versions.check(root)
    assert [(each.version, each.current, each.damage) for each in found] == [
        ("000001", False, None),
        ("000002", True, None),
        ("000003", False, None),
    ]
    folder = root / "versions" / "000001"
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]
    assert found[0].megabytes == sum(path.stat().st_size for path in files) / 1e6
    worlds.overwrite(folder / "items.npz", b"")
    worlds.overwrite(root / "versions" / "000003" / "manifest.json", "{}")
    shares: list[float] = []
    first, second, third = versions.check(root, shares.append)
    assert shares == [1 / 3, 2 / 3, 1.0]
    assert "000001/items.npz: has 0 bytes" in first.damage and second.damage is None
    assert "000003/manifest.json: is damaged" in third.damage
    assert third.megabytes is None
    assert versions.check(folder)[0].damage == first.damage
    shutil.rmtree(root / "versions" / "000002")
    with pytest.raises(ValueError, match="CURRENT: names 000002, but there are only"):
        versions.check(root)


def test_files_of_a_version_are_read_only(root):
    files = list((root / "versions" / "000001").iterdir())
    assert len(files) == 7 and not any(path.stat().st_mode & 0o222 for path in files)


def test_a_file_that_the_manifest_lacks_is_refused(root):
    folder = root / "versions" / "000001"
    (folder / ".nfs0001").write_text("what a file system leaves")
    versions.load(root)
    (folder / "index.faiss").write_text("of another version")
    with pytest.raises(ValueError, match=r"index\.faiss: is not in the manifest"):
        versions.load(root)


@pytest.mark.parametrize(
    "harm, message",
    [
        (lambda about: "", "is damaged"),
        (lambda about: "[1]", "is damaged"),
        (lambda about: "{}", "is damaged"),
        (lambda about: json.dumps({"sha256": versions._seal({})}), "schema None"),
        (lambda about: json.dumps(about)[:-9], "is damaged"),
        (lambda about: json.dumps({**about, "items": 5}), "its own checksum"),
        (lambda about: json.dumps({**about, "extra": {"n": 1}}), "its own checksum"),
        (lambda about: json.dumps({**about, "schema": 99}), "schema 99.* reads 1"),
    ],
)
def test_a_damaged_manifest_is_named(root, harm, message):
    path = root / "versions" / "000001" / "manifest.json"
    worlds.overwrite(path, harm(json.loads(path.read_text())))
    with pytest.raises(ValueError, match=rf"manifest\.json: .*{message}"):
        versions.load(root)


def test_a_version_that_is_whole_but_does_not_fit_itself_is_refused(root):
    """A tower of other size, and a manifest that says so of all files."""
    folder = root / "versions" / "000001"
    (folder / "tower.onnx").unlink()
    worlds.write_tower(folder / "tower.onnx", np.zeros((14, 5)))
    about = versions.manifest(root)
    about["files"]["tower.onnx"] = {
        "bytes": (folder / "tower.onnx").stat().st_size,
        "sha256": sha256(folder / "tower.onnx"),
    }
    text = json.dumps({**about, "sha256": versions._seal(about)})
    worlds.overwrite(folder / "manifest.json", text)
    with pytest.raises(ValueError, match="vectors of size 5, but the index has 4"):
        versions.load(root)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"index": Index(np.ones((12, 5), "f"))}, "size 4, but the index has 5"),
        (
            {"index": Index(np.ones((11, 4), "f"))},
            "index has 11 items, but the table has 12",
        ),
        ({"histories": np.zeros((9, 2), int)}, r"must be \(2, L\), got \(9, 2\)"),
        ({"extra": {"at": np.int64(3)}}, "extra must be JSON"),
        ({"extra": {"at": float("nan")}}, "extra must be JSON"),
        ({"keep": 0}, "keep must be at least 1"),
        (
            {"users": versions.FeatureTable({"age": np.ones(2, "f")}, {})},
            "must have 'id'",
        ),
    ],
)
def test_what_does_not_fit_is_not_published(root, tmp_path, change, message):
    names = ("tower", "users", "items", "index")
    asked = dict(zip(names, worlds.parts(tmp_path, 2), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        versions.publish(root, **asked)
    assert versions.names(root) == [versions.load(root).name] == ["000001"]
    assert hidden(root) == []


@pytest.mark.parametrize("side, column", [("users", "likes"), ("items", "id")])
def test_text_with_a_lone_surrogate_is_not_published(root, tmp_path, side, column):
    names = ("tower", "users", "items", "index")
    parts = dict(zip(names, worlds.parts(tmp_path, 2), strict=True))
    words = parts[side].vocabularies[column].astype("U9")
    words[1] = "caf\ud800"
    changed = {**parts[side].vocabularies, column: words}
    parts[side] = replace(parts[side], vocabularies=changed)
    message = rf"{side}, column '{column}': value 1, 'caf\\ud800', holds a lone surr"
    with pytest.raises(ValueError, match=message):
        versions.publish(root, **parts)
    assert versions.names(root) == ["000001"] and hidden(root) == []


@pytest.mark.parametrize(
    "content", [b"", b"../../etc", b"\xff\xfe", b"1.5", b"none\x1b[31m"]
)
def test_a_damaged_current_is_named_and_nothing_is_published_over_it(
    root, tmp_path, content
):
    (root / "CURRENT").write_bytes(content)
    for act in (
        lambda: versions.load(root),
        lambda: versions.roll_back(root),
        lambda: worlds.publish(root, tmp_path, 2),
    ):
        with pytest.raises(ValueError, match="CURRENT: is damaged") as caught:
            act()
        assert str(caught.value).isprintable()
        assert str(caught.value).endswith("debias retrieval rollback ROOT VERSION")
    assert versions.names(root) == ["000001"]
    assert versions.roll_back(root, "000001") == versions.current(root) == "000001"


def test_the_folder_of_one_version_loads_wherever_it_lies(root, tmp_path):
    worlds.publish(root, tmp_path, 2)
    one = versions.load(root / "versions" / "000001")
    assert one.name == "000001" and versions.load(root).name == "000002"
    copy = shutil.copytree(one.path, tmp_path / "copy")
    assert retrieve(versions.load(copy), {"age": 1.0}, k=2).items == ["1-8", "1-4"]
    worlds.overwrite(copy / "users.npz", b"")
    with pytest.raises(ValueError, match=r"copy/users\.npz: has 0 bytes"):
        versions.load(copy)


def test_fields_are_found_by_name_whatever_their_order(root, tmp_path):
    names = ("tower", "users", "items", "index")
    parts = dict(zip(names, worlds.parts(tmp_path, 1), strict=True))
    for side in ("users", "items"):
        columns = dict(reversed(parts[side].columns.items()))
        parts[side] = replace(parts[side], columns=columns)
    versions.publish(root, **parts)
    asked = {"age": 1.0, "likes": ["tea"]}, ["1-1", "1-2"]
    one, other = (
        retrieve(versions.load(root, name), *asked, k=12)
        for name in ("000001", "000002")
    )
    assert one == other


def test_a_tower_names_the_field_that_it_lacks(root):
    tower = versions.load(root).tower
    with pytest.raises(
        ValueError, match=r"reads \['age', 'history'\], got .* without \['history'\]"
    ):
        tower({"age": np.ones(1, "float32")})


def test_one_publishes_at_a_time(root, tmp_path):
    with (
        versions.alone(root),
        pytest.raises(ValueError, match="another process is publishing"),
    ):
        worlds.publish(root, tmp_path, 2)
    assert worlds.publish(root, tmp_path, 2) == "000002"


def test_where_nothing_or_nothing_of_that_name_is_published(root, tmp_path):
    with pytest.raises(ValueError, match="holds no published version"):
        versions.load(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"no version '000009', only \['000001'\]"):
        versions.load(root, "000009")
    with pytest.raises(ValueError, match=r"no version '\.\./x'"):
        versions.roll_back(root, "../x")


def publish_until(root, folder, number, at):
    arguments = map(str, (root, folder, number, at))
    return subprocess.run(
        [sys.executable, "-m", "tests.debias.retrieval.crash", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


# Every touch of a file, where it is set to "all": then a minute.
MOMENTS = os.environ.get("DEBIAS_CRASHES", "few")


def test_killed_at_any_moment_it_leaves_a_whole_version(root, tmp_path):
    worlds.publish(root, tmp_path, 2)
    worlds.parts(tmp_path, 3)  # its tower, which the process reads
    shutil.copytree(root, tmp_path / "0")
    count = int(publish_until(tmp_path / "0", tmp_path, 3, 0).stdout)
    assert count > 30 and versions.current(tmp_path / "0") == "000003"
    moments = range(1, count + 1)
    if MOMENTS != "all":  # about the renames of folder and CURRENT, and in the clean-up
        moments = [count - back for back in (19, 14, 12, 10, 4)]
    served = []
    for at in moments:
        case = tmp_path / str(at)
        shutil.copytree(root, case)
        died = publish_until(case, tmp_path, 3, at)
        assert died.returncode == -9, died.stderr
        found = versions.load(case)
        served.append(found.name)
        # All parts of what is served carry one number.
        (of,) = {item.split("-")[0] for item in found.items.vocabularies["id"]}
        answer = retrieve(found, {"age": 0.0}, [f"{of}-0"], k=1, repeat="allow")
        assert answer.scores == pytest.approx([int(of) ** 2 * 1.08])
        assert found.manifest["extra"] == ({"number": 3} if of == "3" else {})
        assert int(of) == int(found.name)
        for name in versions.names(case):  # to any of them one could roll back
            versions.load(case, name)
        last = worlds.publish(case, tmp_path, 4, keep=2)
        assert hidden(case) == [] and versions.names(case) == [found.name, last]
    assert served == sorted(served) and set(served) == {"000002", "000003"}


def test_a_tower_of_keras_gives_the_vectors_of_the_model(root, tmp_path):
    from debias.retrieval.models import MIND, dssm

    users, items = worlds.tables()
    features = {**users.take(np.array([0, 1])), "history": [[3, 4, 0], [0, 0, 0]]}
    features["history"] = np.array(features["history"], np.int32)
    for model in (
        dssm(users.schema, items.schema, dim=4, length=3, seed=0),
        MIND(users.schema, items.schema, dim=4, length=3, seed=0),
    ):
        model.build()
        index = Index(model.item_vectors(items.columns))
        versions.publish(root, model.user, users, items, index)
        read = versions.load(root)
        wanted = model.user_vectors(features)
        np.testing.assert_allclose(read.tower(features), wanted, atol=1e-5)
        scores = wanted[0].reshape(-1, 4) @ index.vectors.T
        rows = np.argsort(-scores.max(axis=0), kind="stable")[:3]
        answer = retrieve(read, {"id": "ann"}, ["1-1", "1-2"], k=3, repeat="allow")
        assert answer.items == items.vocabularies["id"][rows].tolist()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_tower_in_half_precision_is_published_in_single(root, tmp_path, policy):
    import keras

    from debias.retrieval.models import MIND, dssm

    users, items = worlds.tables()
    features = {**users.take(np.array([0, 1])), "history": [[3, 4, 0], [0, 0, 0]]}
    features["history"] = np.array(features["history"], np.int32)
    for tower in (MIND, dssm):
        keras.config.set_dtype_policy(policy)
        try:
            model = tower(users.schema, items.schema, dim=4, length=3, seed=0)
            model.build()
            index = Index(model.item_vectors(items.columns))
            versions.publish(root, model.user, users, items, index)
        finally:
            keras.config.set_dtype_policy("float32")
        found = versions.load(root).tower(features)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, model.user_vectors(features), atol=0.03)


def test_a_catalogue_that_shrinks_between_versions(root, tmp_path):
    """Each version answers from its own items; what it lacks is passed over."""
    worlds.publish(root, tmp_path, 1, taken=(np.array([11, 1]), np.array([0, 2, 2])))
    few = worlds.parts(tmp_path, 1)[0], *worlds.parts(tmp_path, 1, items=6)[1:]
    options = {"histories": np.array([[3, 0, 0], [0, 0, 0]], np.int32)}
    versions.publish(root, *few, **options, taken=(np.array([1]), np.array([0, 1, 1])))
    answer = retrieve(versions.load(root), {"id": "ann"}, ["1-11", "1-1"], k=9)
    assert answer.passed_over == ["1-11"] and len(answer.items) == 5
    assert "1-1" not in answer.items
    with pytest.raises(ValueError, match="unknown feature 'weight'"):
        retrieve(versions.load(root), where={"weight": [1, 2]})
    versions.roll_back(root)
    answer = retrieve(versions.load(root), {"id": "ann"}, ["1-11"], k=20)
    assert answer.passed_over == [] and len(answer.items) == 10


def test_what_users_took_belongs_to_the_items_of_the_version(root, tmp_path):
    tower, users, items, index = worlds.parts(tmp_path, 1)
    few = worlds.parts(tmp_path, 1, items=6)
    for options, message in (
        ({"histories": np.array([[13, 0, 0], [2, 0, 0]])}, "hold the code 13, but"),
        (
            {"taken": (np.array([6]), np.array([0, 1, 1]))},
            "table of 6 items, got 6 to 6",
        ),
        ({"taken": (np.array([-1]), np.array([0, 1, 1]))}, "table of 6 items, got -1"),
        ({"taken": (np.array([1]), np.array([0, 1]))}, "must have 2 users, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            versions.publish(root, tower, users, few[2], few[3], **options)
    taken = np.array([11, 5, 5]), np.array([0, 0, 3])
    name = versions.publish(root, tower, users, items, index, taken=taken)
    rows, counts = versions.load(root, name).taken.part(1)
    assert (rows.tolist(), counts.tolist()) == ([5, 11], [2, 1])
    versions.publish(root, tower, users, items, index)
    assert versions.load(root).taken is None
    assert versions.load(root).repeat == Repeat("exclude")


def test_a_file_that_is_no_tower(tmp_path):
    (tmp_path / "tower.onnx").write_text("no")
    with pytest.raises(ValueError, match=r"tower\.onnx: is not an ONNX model"):
        UserTower(tmp_path / "tower.onnx")
