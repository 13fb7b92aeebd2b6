"""Tests of benchmarks.fuzz."""

import pytest
from typer.testing import CliRunner

from benchmarks import fuzz
from debias.commands import inspect as inspecting
from debias.data import read_letor
from debias.data.read_log import Columns, read_log


def test_what_is_mutated_is_sound(tmp_path):
    reading = read_log(fuzz.base_table(), Columns.of(fuzz.COLUMNS))
    assert (reading.log.sessions, reading.data.feature_count) == (60, 3)
    log, data = fuzz.own_log()
    assert log.check(data) is log
    path = tmp_path / "items.txt"
    path.write_text(fuzz._letor(data))
    found = read_letor(path, cache=tmp_path)
    assert found.labels.tolist() == data.labels.tolist()


@pytest.mark.parametrize("command", fuzz.COMMANDS)
def test_a_seed_names_a_mutant(command, tmp_path):
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        mutant = fuzz.make(command, 3, tmp_path / name, tmp_path)
        made.append((mutant.path.read_bytes(), mutant.fault, len(mutant.arguments)))
        assert mutant.arguments[0] == command and mutant.fault
    assert made[0] == made[1]


def test_mutants_are_of_all_kinds_and_differ(tmp_path):
    made = [fuzz.make("inspect", seed, tmp_path, None) for seed in range(60)]
    suffixes = {mutant.path.suffix for mutant in made}
    assert suffixes == {".parquet", ".csv", ".jsonl", ".txt"}
    assert len({mutant.fault for mutant in made}) > 50


@pytest.mark.parametrize("command", ["inspect", "import"])
@pytest.mark.parametrize("seed", range(8))
def test_a_log_is_read_or_refused_by_name(seed, command, tmp_path):
    verdict = fuzz.judged(fuzz.make(command, seed, tmp_path, None))
    assert verdict.outcome in (fuzz.ACCEPTED, fuzz.REFUSED), verdict.said


@pytest.mark.parametrize(
    "fails, outcome",
    [
        (ZeroDivisionError("x"), "traceback"),
        (ValueError("something is wrong"), "unnamed"),
    ],
)
def test_findings_are_told_apart(fails, outcome, tmp_path, monkeypatch):
    def summary(*_):
        raise fails

    monkeypatch.setattr(inspecting, "summary", summary)
    mutant = fuzz.make("inspect", 0, tmp_path, None)
    fuzz.pq.write_table(fuzz.base_table(), tmp_path / "sound.parquet")
    given = ["inspect", str(tmp_path / "sound.parquet")]
    verdict = fuzz.judged(mutant._replace(arguments=given))
    assert verdict.outcome == outcome and str(fails) in verdict.said


def test_a_worker_that_dies_is_a_finding_and_the_rest_goes_on(monkeypatch, tmp_path):
    program = fuzz.Verdict(0, "accepted", "", "", 0.1)._asdict()
    line = fuzz._MARK.decode() + fuzz.json.dumps(program)
    workers = iter(
        [
            f"print({line!r}, flush=True); import os; os.kill(os.getpid(), 9)",
            f"print({line!r}, flush=True)",
        ]
    )
    start = fuzz.subprocess.Popen

    def popen(command, **options):
        return start([*command[:2], next(workers)], **options)

    monkeypatch.setattr(fuzz.subprocess, "Popen", popen)
    found = [v.outcome for v in fuzz.verdicts("inspect", [4, 5, 6], None)]
    assert found == ["accepted", "died", "accepted"]


def test_counts_are_printed():
    app = fuzz.typer.Typer()
    app.command()(fuzz.run)
    done = CliRunner().invoke(app, ["--mutants", "2"])
    assert done.exit_code == 0 and done.output.startswith("inspect: ")
    assert CliRunner().invoke(app, ["--commands", "nothing"]).exit_code == 2
