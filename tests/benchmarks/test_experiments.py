"""Tests of benchmarks.experiments: what the tables hold, and what they rest on."""

import json
from pathlib import Path

import numpy as np

from benchmarks.experiments import RATES, TABLES, Trial
from simulators.oracle import click_table, singular_ratio
from simulators.populations import named

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_settings_are_json_and_tell_experiments_apart():
    for table in TABLES.values():
        for variant in (table.experiments, table.quick):
            keys = [(e.row, e.population, json.dumps(e.settings())) for e in variant]
            assert len(set(keys)) == len(keys)


def test_the_main_table_has_the_promised_rows():
    rows = (
        "logging naive softmax_naive position_feature product additive dot bilinear "
        "mixture xpa listwise listwise_mixture listwise_xpa full_information "
        "oracle_examination ceiling"
    )
    assert TABLES["main"].rows == tuple(rows.split())
    assert TABLES["main"].seeds >= 10 and TABLES["main"].quick_seeds >= 3


def test_pooled_clicks_of_the_mixed_crowd_are_no_product():
    """Else one bias tower would explain them, and a mixture could claim nothing."""
    attraction = np.linspace(0.1, 1, 10)
    assert singular_ratio(click_table(named("mixed"), attraction, 10)) > 0.01
    assert singular_ratio(click_table(named("pbm"), attraction, 10)) < 1e-12


def test_learning_rates_are_those_that_won_on_validation_clicks():
    """The argmax of the committed tuning results, of every row on every crowd."""
    lines = (RESULTS / "tuning-main.jsonl").read_text().splitlines()
    found: dict[tuple[str, str], dict[float, float]] = {}
    for line in map(json.loads, lines):
        learner, rate = line["row"].split("@")
        of = found.setdefault((line["population"], learner), {})
        of[float(rate)] = line["metrics"]["validation"]
    assert all(set(of) == set(RATES) for of in found.values())
    learning = [
        trial
        for trial in TABLES["main"].experiments
        if isinstance(trial, Trial) and trial.row not in ("logging", "ceiling")
    ]
    assert {(trial.population, trial.row) for trial in learning} == set(found)
    for trial in learning:
        of = found[trial.population, trial.row]
        assert of[trial.rate] == max(of.values()), trial
