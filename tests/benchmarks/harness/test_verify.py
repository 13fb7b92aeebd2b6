"""Tests of benchmarks.harness.verify."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks.experiments import TABLES
from benchmarks.harness import machine, store
from benchmarks.harness.verify import deviations, published, sample
from tests.benchmarks.fakes import Fake, records, table

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
TABLE = table(Fake("additive"), Fake("dot"))
HERE = {"versions": machine.versions(), "machine": machine.describe(1)}


def one(value=0.43214, **where):
    """A published record of row `dot`; the column of its metric has four decimals."""
    (record,) = records({5: {"ndcg@5": value, "train_seconds": 9.0}}, "dot")
    (found,) = published(TABLE, [dataclasses.replace(record, **where)])
    return found


def differs(of, value, threads=1):
    found = deviations(of, {"ndcg@5": value}, threads)
    return [(each.metric, each.published, each.found) for each in found]


def test_in_the_same_place_the_printed_digits_must_agree():
    of = one(**HERE)
    assert of.digits["ndcg@5"] == 4 and of.job.key == of.record.key
    assert differs(of, 0.43218) == []
    assert differs(of, 0.4322) == [("ndcg@5", 0.43214, 0.4322)]
    (missing,) = deviations(of, {})
    assert missing.found is None


@pytest.mark.parametrize(
    "where",
    [
        {},
        {**HERE, "machine": {**HERE["machine"], "flags": "other"}},
        {**HERE, "machine": {**HERE["machine"], "threads": 2}},
        {**HERE, "versions": {**HERE["versions"], "tensorflow": "2.0"}},
    ],
)
def test_elsewhere_they_must_agree_to_three_thousandths(where):
    of = one(**where)
    assert differs(of, 0.43214 + 0.0029) == []
    assert len(differs(of, 0.43214 - 0.0031)) == 1
    assert differs(one(2.0, **where), 2.0059) == []  # of values above 1, a share


def test_the_version_of_this_project_and_the_cores_are_no_other_place():
    versions = {**HERE["versions"], "debias-ranking": "0.0"}
    of = one(versions=versions, machine={**HERE["machine"], "cores": 99})
    assert len(differs(of, 0.4322)) == 1


def test_a_sample_is_drawn_by_its_seed_from_what_can_be_measured(tmp_path):
    found = records(dict.fromkeys(range(20), 0.5), "dot")
    old = records({30: 0.5}, "dot", value=0.1)
    own = [dataclasses.replace(r, dataset="mine") for r in records({31: 0.5}, "dot")]
    for record in (*found, *old, *own):
        store.append(tmp_path / "main.jsonl", record)

    def seeds(count, seed):
        drawn = sample([TABLE], tmp_path, count, seed, ())
        return [each.record.seed for each in drawn]

    assert sorted(seeds(99, 0)) == list(range(20))
    assert seeds(3, 0) == seeds(3, 0) != seeds(3, 1)
    rates = dataclasses.replace(TABLE, threads=None)
    for tables, rows in (([rates], ()), ([TABLE], ("additive",))):
        with pytest.raises(ValueError, match="no result that can be measured again"):
            sample(tables, tmp_path, 3, 0, rows)


@pytest.mark.parametrize(
    "name, row, population",
    [
        ("coverage", "adjacent_chain/delta", "many"),
        ("trees", "logging", "pbm"),
    ],
)
def test_a_cheap_published_result_comes_out_again(name, row, population):
    found = published(TABLES[name], store.read(RESULTS / f"{name}.jsonl"), [row])
    of = next(each for each in found if each.record.population == population)
    again = of.job.experiment.measure(of.record.seed, None)
    assert deviations(of, again) == []
