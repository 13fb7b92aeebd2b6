"""Tests of debias.data.letor."""

import bz2
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from debias.data import letor, read_letor, read_letor_folder
from tests.debias.data.strategies import ranking_data, same

TEXT = "# a comment\n2 qid:7 1:0.5 3:1 # best\n\n0 qid:7 2:-4e-1\n1 qid:3 1:3\n"
FEATURES = [[0.5, 0, 1], [0, np.float32(-0.4), 0], [3, 0, 0]]
FOLDER = Path(os.environ.get("DEBIAS_DATA", Path(__file__).parents[4] / "shared/data"))


@pytest.fixture
def read(tmp_path):
    """Writes a text to a file and reads it, with a cache of its own."""

    def read(text, name="data.txt", **options):
        (tmp_path / name).write_text(text)
        return read_letor(tmp_path / name, cache=tmp_path / "cache", **options)

    return read


def test_reads_grades_queries_features_and_comments(read):
    data = read(TEXT)
    np.testing.assert_array_equal(data.features, np.array(FEATURES, np.float32))
    assert data.features.dtype == np.float32 and data.features.flags.c_contiguous
    assert data.labels.tolist() == [2, 0, 1] and data.labels.dtype == np.int8
    assert data.qid.tolist() == [7, 3] and data.offsets.tolist() == [0, 2, 3]
    assert data.item_id.tolist() == ["best", "", ""]


def test_comments_are_item_ids(read):
    assert read("1 qid:1 1:5\n").item_id is None
    text = "1 qid:1 1:5 #docid = GX-7 inc = 1 prob = 0.2\n0 qid:2 1:6 # red shoe\n"
    data = read(text)
    assert data.item_id.tolist() == ["GX-7", "red shoe"]
    assert data.select([1]).item_id.tolist() == ["red shoe"]
    assert data.arranged(None).item_id.tolist() == ["GX-7", "red shoe"]
    again = read(text)  # from the copy
    assert again.item_id.tolist() == ["GX-7", "red shoe"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2"])
@pytest.mark.parametrize("name", ["", "shoes-", "\u00fc:"])
def test_marks_packing_and_text_qids(mark, suffix, name, tmp_path):
    lines = [
        f"{i % 3} qid:{name}{i // 5} 1:{i}.5 3:{i % 7} # doc{i}" for i in range(40)
    ]
    raw = mark + "\n".join(lines).encode()
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[suffix]
    path = tmp_path / f"train.txt{suffix}"
    path.write_bytes(pack(raw))
    data = read_letor(path, cache=tmp_path / "cache")
    assert (data.items, data.queries, data.feature_count) == (40, 8, 3)
    names = [f"{name}{q}" if name else q for q in range(8)]
    assert data.qid.tolist() == names and data.item_id[39] == "doc39"
    assert data.features[:, 0].tolist() == [i + 0.5 for i in range(40)]
    assert read_letor_folder(tmp_path, cache=tmp_path / "c").keys() == {"train"}


def test_text_qids_that_come_back_are_named(read):
    lines = ["1 qid:a 1:1", "1 qid:b 1:1", "0 qid:a 1:2"]
    with pytest.raises(ValueError, match=r"line 3: qid a starts again"):
        read("\n".join(lines))
    with pytest.raises(ValueError, match=r"line 2: qid: must name a query"):
        read("1 qid:a 1:1\n1 qid: 1:1\n")


def test_zero_based_and_a_wider_feature_count(read):
    assert read("1 qid:1 0:5 2:6\n", zero_based=True).features.tolist() == [[5, 0, 6]]
    assert read("1 qid:1 1:5\n", feature_count=3).features.tolist() == [[5, 0, 0]]
    zero_based = {"zero_based": True, "feature_count": 3}
    assert read("1 qid:1 0:5\n", **zero_based).features.tolist() == [[5, 0, 0]]


def test_an_item_without_features_is_all_zeros(read):
    assert read("1 qid:1 2:5\n0 qid:1\n").features.tolist() == [[0, 5], [0, 0]]


def test_gzip_reads_the_same(tmp_path, read):
    path = tmp_path / "packed.txt.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    assert same(read_letor(path, cache=tmp_path / "cache"), read(TEXT))
    path.write_bytes(gzip.compress(TEXT.replace("3:1 ", "3:x ").encode()))
    with pytest.raises(ValueError, match=r"packed.txt.gz, line 2: .*'x'"):
        read_letor(path, cache=tmp_path / "cache")


@settings(deadline=None)
@given(data=ranking_data())
def test_whatever_is_written_is_read(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("letor")
    qid = np.arange(data.queries) if data.qid is None else data.qid
    labels = np.zeros(data.items, int) if data.labels is None else data.labels
    with (folder / "data.txt").open("w") as file:
        for item, query in enumerate(data.query_of_item()):
            values = enumerate(data.features[item], start=1)
            pairs = " ".join(f"{i}:{x:.9g}" for i, x in values)
            file.write(f"{labels[item]} qid:{qid[query]} {pairs}\n")
    read = read_letor(folder / "data.txt", cache=folder)
    np.testing.assert_array_equal(read.features, data.features)
    assert np.array_equal(read.labels, labels) and np.array_equal(read.qid, qid)
    assert np.array_equal(read.offsets, data.offsets)


@pytest.mark.parametrize("suffix", [".query", ".group"])
def test_group_sizes_beside_the_file(tmp_path, read, suffix):
    (tmp_path / f"data.txt{suffix}").write_text("2\n1\n")
    data = read("2 1:0.5\n0 1:4\n1 1:3\n")
    assert data.offsets.tolist() == [0, 2, 3] and data.qid is None
    assert read(TEXT).qid.tolist() == [7, 3]  # both, and they agree


@pytest.mark.parametrize(
    "sizes, message",
    [
        ("2\n2\n", "has 3 lines, but the sizes in data.txt.query sum to 4"),
        ("1\n2\n", "differ"),
        ("2\nx\n", "line 2 of data.txt.query must be a size from 1, got 'x'"),
        ("0\n3\n", "line 1 of data.txt.query must be a size from 1, got '0'"),
    ],
)
def test_wrong_group_sizes(tmp_path, read, sizes, message):
    (tmp_path / "data.txt.query").write_text(sizes)
    with pytest.raises(ValueError, match=f"data.txt: .*{message}"):
        read(TEXT)


@pytest.mark.parametrize(
    "line, message",
    [
        ("1 qid:7 1:2", "qid 7 starts again"),
        ("5 qid:3 1:2", r"grade must be a whole number in 0..4, got 5"),
        ("-1 qid:3 1:2", r"whole number in 0..4, got -1"),
        ("1.5 qid:3 1:2", r"whole number in 0..4, got 1.5"),
        ("nan qid:3 1:2", "got nan"),
        ("inf qid:3 1:2", "got inf"),
        ("x qid:3 1:2", "'x'"),
        ("1 1:2", "some lines have a qid and some have none"),
        ("1 qid:3 1:nan", "feature 1 must be finite in float32, got nan"),
        ("1 qid:3 1:inf", "feature 1 must be finite in float32, got inf"),
        ("1 qid:3 1:1e39", r"feature 1 must be finite in float32, got 1e\+39"),
        ("1 qid:3 2:1 1:1", "must ascend, got 1 after 2"),
        ("1 qid:3 1:1 1:1", "must ascend, got 1 after 1"),
        ("1 qid:3 0:1", "indices start at 1, got 0"),
        ("1 qid:3 4:1", "indices end at 3, got 4"),
        ("1 qid:3 1;1", "must be index:value, got '1;1'"),
        ("1 qid:3 a:1", "'a'"),
    ],
)
def test_a_wrong_line_is_named(read, line, message):
    with pytest.raises(ValueError, match=f"data.txt, line 6: .*{message}"):
        read(TEXT + line + "\n0 qid:11 1:1\n", feature_count=3)


def test_grades_up_to_the_declared_one(read):
    assert read("9 qid:1 1:1\n", max_grade=9).labels.tolist() == [9]
    with pytest.raises(ValueError, match=r"line 1: .* 0..1, got 2"):
        read("2 qid:1 1:1\n", max_grade=1)


@pytest.mark.parametrize("text", ["", "\n\n", "# only this\n"])
def test_an_empty_file(read, text):
    with pytest.raises(ValueError, match=r"data.txt: holds no item"):
        read(text)


def test_no_feature_anywhere(read):
    with pytest.raises(ValueError, match=r"data.txt: has no feature on any line"):
        read("1 qid:1\n0 qid:1\n")
    assert read("1 qid:1\n", feature_count=2).features.tolist() == [[0, 0]]


def test_no_query_anywhere(read):
    with pytest.raises(ValueError, match=r"data.txt: lines have no qid, and no file"):
        read("1 1:2\n")


def test_wrong_arguments(tmp_path, read):
    with pytest.raises(ValueError, match="feature_count"):
        read(TEXT, feature_count=0)
    with pytest.raises(ValueError, match="read_letor_folder"):
        read_letor(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_letor(tmp_path / "nowhere")


def test_parsed_once_until_the_content_or_an_option_changes(
    tmp_path, read, monkeypatch
):
    parses = []
    inner = letor._parse
    monkeypatch.setattr(letor, "_parse", lambda *a: parses.append(a) or inner(*a))
    first = read(TEXT)
    for _ in range(2):
        assert same(read(TEXT), first)
    read(TEXT, name="moved.txt")
    assert len(parses) == 1 and isinstance(first.features.base, np.memmap)
    for change in ({"feature_count": 4}, {"max_grade": 3}):
        read(TEXT, **change)
    read(TEXT.replace("0.5", "0.6"))
    (tmp_path / "data.txt.query").write_text("2\n1\n")
    read(TEXT)
    assert len(parses) == 5


def test_a_cache_that_cannot_be_written_is_said_and_survived(tmp_path, read):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.warns(UserWarning, match="its copy cannot be written"):
        assert read(TEXT).items == 3


def test_a_damaged_copy_is_named(tmp_path, read):
    read(TEXT)
    (copy,) = (tmp_path / "cache").glob("*/features.npy")
    copy.write_bytes(copy.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"features.npy: is a damaged copy"):
        read(TEXT)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes a folder of files that hold TEXT, by their names."""
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "cache"))

    def folder(*names):
        (tmp_path / "data").mkdir()
        for name in names:
            content = TEXT.encode()
            packed = gzip.compress(content) if name.endswith(".gz") else content
            (tmp_path / "data" / name).write_bytes(packed)
        return tmp_path / "data"

    return folder


@pytest.mark.parametrize(
    "names, splits",
    [
        (["test.txt", "train.txt", "vali.txt"], ["train", "vali", "test"]),
        (["rank.train", "rank.test", "train.conf", "README.txt"], ["train", "test"]),
        (["set1.train.txt.gz", "set1.valid.txt.gz"], ["train", "vali"]),
        (["Train.svm", ".test.svm", "test.npy"], ["train"]),
        (["msn.fold1.dev.5k.txt", "trained.txt"], ["vali"]),
        (["b.txt", "a.svm.gz", "README.md", "readme.txt"], ["a", "b"]),
    ],
)
def test_which_file_is_which_split(folder, names, splits):
    assert list(read_letor_folder(folder(*names))) == splits


def test_splits_get_the_feature_count_of_the_widest(folder):
    path = folder("train.txt", "test.txt")
    (path / "test.txt").write_text("1 qid:1 5:2\n")
    read = read_letor_folder(path)
    assert read["train"].features.shape == (3, 5)
    assert read["train"].features[:, :3].tolist() == np.float32(FEATURES).tolist()
    assert read["test"].features.tolist() == [[0, 0, 0, 0, 2]]
    assert read_letor_folder(path, feature_count=6)["test"].feature_count == 6
    with pytest.raises(ValueError, match=r"test.txt, line 1: .* end at 3, got 5"):
        read_letor_folder(path, feature_count=3)


def test_wrong_folders(tmp_path, folder):
    path = folder("train.txt", "train2.txt", "a.train")
    with pytest.raises(ValueError, match=r"both a.train and train.txt are train"):
        read_letor_folder(path)
    (path / "a.train").unlink()
    (path / "train2.txt").unlink()
    (path / "test.train.txt").write_text("")
    with pytest.raises(
        ValueError,
        match=r"test.train.txt: its name .* one part, but contains test and tr",
    ):
        read_letor_folder(path)
    with pytest.raises(ValueError, match="is not a folder"):
        read_letor_folder(path / "train.txt")
    (tmp_path / "MSLR" / "Fold1").mkdir(parents=True)
    with pytest.raises(ValueError, match="MSLR: holds no LETOR file, only Fold1"):
        read_letor_folder(tmp_path / "MSLR")


@pytest.mark.skipif(
    not (FOLDER / "lightgbm_rank").is_dir(),
    reason="real data is not here: name its folder in DEBIAS_DATA",
)
def test_real_graded_data(tmp_path):
    read = read_letor_folder(FOLDER / "lightgbm_rank", cache=tmp_path)
    train, test = read["train"], read["test"]
    assert (train.queries, train.items, train.feature_count) == (201, 3005, 300)
    assert (test.queries, test.items, test.feature_count) == (50, 768, 300)
    assert np.bincount(train.labels).tolist() == [645, 1211, 858, 222, 69]
    assert np.bincount(test.labels).tolist() == [206, 256, 252, 44, 10]
    assert (
        train.features[0, [0, 9, 10]].tolist() == np.float32([0, 0.89, 0.75]).tolist()
    )


@pytest.mark.parametrize("damage", ["cut", "flipped", "headless"])
def test_damaged_gzip_names_itself(damage, tmp_path):
    raw = gzip.compress(b"1 qid:1 1:0.5 2:1\n" * 1000)
    path = tmp_path / "train.txt.gz"
    flipped = raw[:20] + bytes([raw[20] ^ 255]) + raw[21:]
    path.write_bytes(
        {"cut": raw[: len(raw) // 2], "flipped": flipped, "headless": b"x" + raw}[
            damage
        ]
    )
    with pytest.raises(
        ValueError, match=r"train\.txt\.gz: is not a complete gzip file"
    ):
        read_letor(path, cache=tmp_path / "cache")


def test_damaged_bzip2_names_itself(tmp_path):
    raw = bz2.compress(b"1 qid:1 1:0.5 2:1\n" * 1000)
    for number, damaged in enumerate((raw[: len(raw) // 2], b"x" + raw)):
        path = tmp_path / f"{number}.txt.bz2"
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"bz2: is not a complete bzip2 file"):
            read_letor(path, cache=tmp_path / "cache")


def test_one_far_index_names_its_line_and_the_memory(tmp_path):
    lines = [f"1 qid:{i // 5} 1:{i}.5 3:1 # a" for i in range(40)]
    path = tmp_path / "far.txt"
    path.write_text(
        "\n".join(["# items", *lines[:20], "1 qid:4 50000000:1", *lines[20:]])
    )
    # 41 items of 50,000,000 float32 are 8.2 GB
    with pytest.raises(ValueError, match=r"far\.txt: line 22 .* 50000000 .* 8\.2 GB"):
        read_letor(path, cache=tmp_path / "cache")


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ValueError, match=r"pipe\.txt: must be a file"):
        read_letor(tmp_path / "pipe.txt")
