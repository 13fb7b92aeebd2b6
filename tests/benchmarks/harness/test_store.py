"""Tests of benchmarks.harness.store."""

import dataclasses
import json
import subprocess
import sys
import warnings

import pytest

from benchmarks.harness import store
from benchmarks.harness.store import Record

ONE = Record(
    table="main",
    row="naive",
    dataset="generated",
    population="mixed",
    seed=0,
    metrics={"ndcg@5": 0.25, "mrr": 1},
    seconds=1.5,
    config={"hidden": [64, 32], "rate": 0.1},
    versions={"python": "3.11"},
)
TWO = dataclasses.replace(ONE, seed=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "main.jsonl"


def test_what_is_appended_is_read_in_order(path):
    store.append(path, ONE)
    store.append(path, TWO)
    assert store.read(path) == [ONE, TWO]


def test_a_line_has_exactly_the_documented_fields(path):
    store.append(path, ONE)
    assert list(json.loads(path.read_text())) == [
        "table",
        "row",
        "dataset",
        "population",
        "seed",
        "metrics",
        "seconds",
        "config",
        "versions",
        "machine",
    ]


def test_records_of_before_the_machine_was_noted_are_read(path):
    store.append(path, ONE)
    line = json.loads(path.read_text())
    del line["machine"]
    path.write_text(json.dumps(line) + "\n")
    store.append(path, dataclasses.replace(ONE, machine={"threads": 1}))
    assert [record.machine for record in store.read(path)] == [{}, {"threads": 1}]


def test_an_absent_file_has_no_records(path):
    assert store.read(path) == []


@pytest.mark.parametrize("cut", [1, 20, -2])
def test_a_half_written_last_line_is_dropped_with_a_warning(path, cut):
    store.append(path, ONE)
    store.append(path, TWO)
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(first + b"\n" + second[:cut])
    with pytest.warns(UserWarning, match=r"main\.jsonl, line 2: dropped"):
        assert store.read(path) == [ONE]


@pytest.mark.parametrize("cut", [1, 20, -2])
def test_appends_after_a_half_written_line_start_afresh(path, cut):
    store.append(path, ONE)
    path.write_bytes(path.read_bytes()[:-1][:cut])
    store.append(path, TWO)
    store.append(path, ONE)
    with pytest.warns(UserWarning, match=r"main\.jsonl, line 1: dropped"):
        assert store.read(path) == [TWO, ONE]


def test_two_appends_that_meet_the_same_half_written_line(path):
    store.append(path, ONE)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30] + 2 * (store.TORN + b"\n" + whole))
    with pytest.warns(UserWarning, match="line 2: dropped") as caught:
        assert store.read(path) == [ONE, ONE, ONE]
    assert len(caught) == 1


def test_a_whole_last_line_without_its_end_is_kept(path):
    store.append(path, ONE)
    path.write_bytes(path.read_bytes()[:-1])
    assert store.read(path) == [ONE]
    store.append(path, TWO)
    assert store.read(path) == [ONE, TWO]


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"table": "main", "row": ',
        b"[]",
        b"{}",
        json.dumps({**dataclasses.asdict(ONE), "extra": 1}).encode(),
        json.dumps({**dataclasses.asdict(ONE), "metrics": {"mrr": "1"}}).encode(),
        json.dumps(
            {**dataclasses.asdict(ONE), "metrics": {"mrr": float("nan")}}
        ).encode(),
        json.dumps({**dataclasses.asdict(ONE), "seed": 1.5}).encode(),
        json.dumps({**dataclasses.asdict(ONE), "config": None}).encode(),
        b"\xff\xfe",
    ],
)
def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(path, damaged):
    store.append(path, ONE)
    whole = path.read_bytes()
    path.write_bytes(whole + damaged + b"\n" + whole)
    with pytest.raises(ValueError, match=r"main\.jsonl, line 2: "):
        store.read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_not_written(path, value):
    with pytest.raises(ValueError, match=r"metric mrr of row naive"):
        store.append(path, dataclasses.replace(ONE, metrics={"mrr": value}))
    assert not path.exists()


def test_the_newest_of_a_key_wins_and_the_key_is_all_but_the_outcome(path):
    again = dataclasses.replace(ONE, metrics={"mrr": 0.5}, seconds=9.0, versions={})
    assert list(store.newest([ONE, TWO, again]).values()) == [again, TWO]
    for change in (
        {"table": "other"},
        {"row": "dot"},
        {"dataset": "other"},
        {"population": "grid"},
        {"seed": 7},
        {"config": {"hidden": [64]}},
    ):
        assert dataclasses.replace(ONE, **change).key != ONE.key


def test_several_processes_append_to_one_file(path):
    code = (
        "import sys, dataclasses; from pathlib import Path\n"
        "from benchmarks.harness import store\n"
        "from tests.benchmarks.harness.test_store import ONE\n"
        "for seed in range(200):\n"
        "    row = dataclasses.replace(ONE, row=sys.argv[2], seed=seed)\n"
        "    store.append(Path(sys.argv[1]), row)\n"
    )
    crew = [
        subprocess.Popen([sys.executable, "-c", code, str(path), row])
        for row in ("a", "b", "c")
    ]
    assert [process.wait() for process in crew] == [0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = store.read(path)
    for row in ("a", "b", "c"):
        assert [r.seed for r in records if r.row == row] == list(range(200))
