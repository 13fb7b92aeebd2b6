"""Tests of the commands of benchmarks."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks.harness import scheduler, screen, store
from tests.benchmarks import fakes

ROOT = Path(__file__).parents[2]
FAKE = (
    "import sys, tests.benchmarks.fakes as fakes\n"
    "sys.modules['benchmarks.experiments'] = fakes\n"
    "from benchmarks.__main__ import main\n"
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of its own, and the tables of `fakes`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(fakes.LOG, str(tmp_path / "begun"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setitem(sys.modules, "benchmarks.experiments", fakes)
    return tmp_path


def call(*arguments, code=0):
    result = CliRunner().invoke(command.app, arguments)
    assert result.exit_code == code, result.output
    return result.output


def start(*arguments):
    """The command in a process group of its own, as from a terminal.

    A shell starts what it puts in the background deaf to Ctrl-C, and children inherit.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{FAKE}if __name__ == '__main__':\n    {listen}\n    main()\n"
    Path("fake.py").write_text(script)
    return subprocess.Popen(
        [sys.executable, "fake.py", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def begun():
    return [line.split() for line in Path("begun").read_text().splitlines()]


def results(table="main", folder=".benchmarks"):
    return store.read(Path(folder) / f"{table}.jsonl")


def wait_for(count, table):
    """Waits until a running command has so many results, and returns their keys."""
    end = time.monotonic() + 120
    while len(found := results(table)) < count:
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def test_without_arguments_the_quick_main_table_is_run_and_printed():
    output = call()
    assert "main: mixed, generated, 2 seeds" in output
    assert "The full table has more." in output
    assert re.search(r"dot .*\.6065 ±\.0826", output)
    assert len(results()) == 8
    assert Path(".benchmarks/.gitignore").read_text() == "*\n"
    assert "8 of 8 results are in .benchmarks/main.jsonl already" in call()
    assert len(begun()) == 8


def test_run_takes_rows_populations_seeds_and_a_folder():
    call(
        *("run", "main", "--seeds", "1", "--jobs", "1", "--out", "here"),
        *("--only", "additive", "--only", "dot", "--population", "mixed"),
    )
    found = [(r.row, r.population, r.seed) for r in results(folder="here")]
    assert found == [("additive", "mixed", 0), ("dot", "mixed", 0)]
    assert not Path(".benchmarks").exists()


def test_run_on_a_file_of_data():
    Path("letor.txt").write_text("1 qid:1 1:0.5\n")
    output = call("run", "main", "--data", "letor.txt", "--seeds", "1", "--quick")
    assert "main: mixed, letor.txt, 1 seed" in output
    assert {r.dataset for r in results()} == {"letor.txt"}


def test_publish_writes_the_source_tree(monkeypatch, place):
    (place / "setup.py").touch()
    monkeypatch.setattr(command, "ROOT", place)
    monkeypatch.setattr(command, "RESULTS", place / "published")
    call("run", "main", "--publish", "--seeds", "1")
    assert len(results(folder="published")) == 4
    assert "Results: " in call("table", "main") and not Path(".benchmarks").exists()


def test_speed_measures_afresh_and_the_newest_counts():
    call("speed", "--seeds", "2")
    call("speed", "--seeds", "2")
    assert len(results("speed")) == 4
    assert "speed: mixed, generated, 2 seeds" in call("table", "speed")


def test_a_failure_is_reported_at_the_end_and_in_the_exit_code():
    output = call("run", "broken", "--seeds", "2", code=1)
    assert output.count("ValueError: row raising cannot learn") == 1
    assert "Failed: raising on mixed, seed 0; raising on mixed, seed 1" in output
    assert "signal 9" in output and "these are its last words" in output
    assert "No results yet: raising, dying." in " ".join(output.split())
    assert [record.row for record in results("broken")] == ["sound", "sound"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "mian"], "did you mean main"),
        (["table", "speeed"], "did you mean speed"),
        (["run", "main", "--only", "dott"], "did you mean dot"),
        (["run", "main", "--population", "mixd"], "did you mean mixed"),
        (["table", "main", "--baseline", "dott"], "did you mean dot"),
        (["run", "main", "--seeds", "0"], "--seeds"),
        (["run", "main", "--data", "absent"], "--data"),
        (["run", "main", "--publish", "--quick"], "--publish"),
        (["run", "main", "--only", "dot", "--population", "grid"], "no experiment"),
        (["check", "--root", "."], "README.md"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    output = " ".join(call(*arguments, code=2).replace("│", " ").split())
    assert message in output and "Traceback" not in output


def test_table_shows_own_results_then_published_ones(monkeypatch, place):
    monkeypatch.setattr(command, "RESULTS", place / "published")
    assert "python -m benchmarks run main" in call("table", "main", code=1)
    call("run", "main", "--seeds", "1", "--out", "published")
    assert "1 seed" in call("table", "main")
    call("run", "main", "--seeds", "2")
    assert "2 seeds" in call("table", "main")
    assert "1 seed" in call("table", "main", "--published")
    assert "| **dot** ⚑ | **.6065 ±.0826** |" in call("table", "main", "--markdown")
    assert "vs dot" in call("table", "main", "--baseline", "dot")
    assert "page written" in call("table", "main", "--html", "page.html")
    page = Path("page.html").read_text()
    assert '<td class="text">.6065 ±.0826</td>' in page and "2 seeds" in page
    found = json.loads(call("table", "main", "--population", "mixed", "--json"))
    dot = next(row for row in found[0]["rows"] if row["row"] == "dot")
    assert dot["metrics"]["ndcg@5"]["n"] == 2 and not dot["bound"]
    assert page.count("<svg") == 4  # two populations, for wide and narrow screens


def test_run_writes_a_page_beside_the_table(place):
    assert "dot" in call("run", "main", "--seeds", "1", "--html", "page.html")
    assert "<svg" in Path("page.html").read_text()
    assert "there is no folder" in call(
        "run", "main", "--html", "nowhere/page.html", code=2
    )
    assert "goes after the command" in call("--html", "a.html", "list", code=2)


def test_check_and_write_on_a_source_tree(place):
    call("run", "main", "--seeds", "2", "--out", "benchmarks/results")
    page = place / "README.md"
    page.write_text("<!-- table:main -->\n<!-- /table -->\n")
    assert "README.md:1: table main: differs" in call("check", "--root", ".", code=1)
    assert "agree" in call("check", "--write", "--root", ".")
    assert "agree" in call("check", "--root", ".")
    page.write_text(page.read_text().replace(".6065", ".6066"))
    assert "expected '| **dot**" in call("check", "--root", ".", code=1)


def test_a_table_made_of_others_is_shown_and_never_run(monkeypatch, place):
    monkeypatch.setattr(command, "RESULTS", place / "published")
    output = call("run", "derived", code=2).replace("│", " ")
    assert "made of the results of main and speed: run these" in " ".join(
        output.split()
    )
    output = " ".join(call("table", "derived", code=1).split())
    assert "run main; python -m benchmarks run speed" in output
    call("run", "main", "--seeds", "2")
    output = call("table", "derived")
    assert "derived: mixed, generated, 2 seeds" in output and "best" in output


def test_a_table_that_needs_data_says_so():
    output = call("run", "given", code=2).replace("│", " ")
    assert "needs graded data: --data, a LETOR file" in " ".join(output.split())
    Path("letor.txt").write_text("1 qid:1 1:0.5\n")
    assert "given: mixed, letor.txt, 1 seed" in call(
        "run", "given", "--data", "letor.txt", "--seeds", "1"
    )


def test_a_damaged_results_file_is_named():
    call()
    path = Path(".benchmarks/main.jsonl")
    path.write_bytes(b"{}\n" + path.read_bytes())
    for arguments in (["run", "main"], ["table", "main"]):
        output = call(*arguments, code=2).replace("│", " ")
        assert "main.jsonl, line 1" in " ".join(output.split())


def test_list_names_everything():
    output = call("list")
    assert "main: Fakes (3 seeds, quick version with 2)" in output
    assert "populations: mixed grid" in output and "rows: additive dot naive" in output
    assert "once: Fakes (1 seed, quick" in output
    assert json.loads(call("list", "--json"))["main"]["rows"][0] == "additive"


def test_every_command_has_an_example_that_it_takes():
    group = typer.main.get_command(command.app)
    for name, each in group.commands.items():
        example = each.epilog.removeprefix("Example: ")
        head = ["python", "-m", "benchmarks", name]
        assert shlex.split(example)[:4] == head
        with each.make_context(name, shlex.split(example)[4:]):
            pass


def test_a_quiet_run_prints_json_alone(place):
    found = call("run", "main", "--seeds", "1", "--json", "--quiet")
    assert {view["population"] for view in json.loads(found)} == {"mixed", "grid"}


def test_list_breaks_lines_between_names_only(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    lines = call("list").splitlines()
    assert max(map(len, lines)) <= 24
    words = " ".join(lines).split()
    assert words.count("long-name-of-a-row") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list"]])
def test_help_and_list_load_no_learning_library(arguments):
    code = (
        f"{FAKE}import sys\nsys.argv = ['benchmarks', *{arguments!r}]\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'tensorflow', 'keras', 'jax', 'scipy', 'numpy'}\n"
        "    print('loaded', sorted(heavy & {*sys.modules}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    ).stdout
    assert "loaded []" in output


def test_a_run_killed_in_the_middle_goes_on_and_measures_nothing_twice():
    process = start("run", "slow", "--jobs", "2")
    kept = wait_for(4, "slow")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until_gone()
    kept = results("slow")
    before = len(begun())
    call("run", "slow", "--jobs", "2")
    found = results("slow")
    assert found[: len(kept)] == kept
    assert len(found) == 18 == len({record.key for record in found})
    again = {(row, int(seed)) for row, _, seed, *_ in begun()[before:]}
    assert again.isdisjoint((record.row, record.seed) for record in kept)
    assert len(begun()) - before == 18 - len(kept)


def wait_until_gone():
    """Waits for the end of all processes that measured."""
    end = time.monotonic() + 60
    while any(map(alive, {int(line[3]) for line in begun()})):
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_processes_leave_with_a_killed_run_in_the_middle_of_a_measurement():
    process = start("run", "endless", "--jobs", "2", "--seeds", "1")
    wait_for(1, "endless")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until_gone()  # though a measurement takes ten minutes


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on():
    process = start("run", "slow", "--jobs", "2")
    wait_for(3, "slow")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    count = len(results("slow"))
    assert f"Interrupted: {count} results are in .benchmarks/slow.jsonl" in output
    assert "The same command goes on from there." in " ".join(output.split())
    assert "Traceback" not in output
    call("run", "slow", "--jobs", "2")
    assert len(results("slow")) == 18


def test_ctrl_c_stops_a_measurement_and_does_not_make_it_fail():
    process = start("run", "endless", "--jobs", "2", "--seeds", "1")
    wait_for(1, "endless")
    time.sleep(0.2)  # until the parent waits for the other, which takes ten minutes
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "1 are not measured yet" in output and "Failed" not in output
    wait_until_gone()


def test_a_line_counts_estimates_and_names_what_ended(capsys):
    job = scheduler.Job("main", fakes.Fake("dot"), "generated", 1)
    record = store.Record("main", "dot", "", "mixed", 0, {}, 3.25, {}, {})
    outcome = scheduler.Outcome(running=[job], seconds_left=95.0)
    screen._say(outcome, None, 2)
    outcome.done.append(record)
    screen._say(outcome, record, 2)
    outcome.failures.append(scheduler.Failure(job, "why"))
    screen._say(outcome, outcome.failures[0], 2)
    assert capsys.readouterr().err.splitlines() == [
        "1/2 dot on mixed, seed 0: 3.2 s, about 2 min left",
        "2/2 dot on mixed, seed 1: failed",
    ]


def test_a_run_tells_its_cost_before_it_starts(monkeypatch, place):
    monkeypatch.setattr(command, "RESULTS", place / "published")
    assert "results at" not in call("run", "main", "--seeds", "1")
    output = call("run", "main", "--seeds", "2", "--jobs", "3")
    assert "4 results at --jobs 3: about 10 s, by what earlier runs took." in output
    output = call("run", "main", "--seeds", "4", "--jobs", "3")
    assert "8 results at --jobs 3: about 10 s (about 10 s a seed), by what" in output


def test_verify_measures_a_sample_again_and_fails_on_a_difference(monkeypatch, place):
    monkeypatch.setattr(command, "RESULTS", place)
    call("run", "main", "--seeds", "2", "--out", ".")
    before = Path("main.jsonl").read_text()
    output = call("verify", "--table", "main", "--sample", "3")
    assert "3 results measured again, 3 held to the digits printed" in output
    assert "0 differences" in output
    assert Path("main.jsonl").read_text() == before
    Path("main.jsonl").write_text(before.replace('"ndcg@5": 0.6,', '"ndcg@5": 0.7,'))
    output = call("verify", "--sample", "99", "--only", "dot", code=1)
    difference = r"main +mixed +dot +0 +ndcg@5 +0\.7 +0\.6 +5e-05"
    assert re.search(difference, output)
    assert "2 results measured again" in output and "1 difference." in output
    output = call("verify", "--table", "speed", code=2).replace("│", " ")
    assert "no result that can be measured again" in " ".join(output.split())
