"""What commands print: nothing that a file holds rules the terminal."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from debias.__main__ import app
from debias.commands import screen
from debias.commands.screen import messages, print_table, say
from debias.data.text import printable

EVIL = "\x1b]0;title\x07[bold]id[/bold]\x1b[2J\u202e\x9b31m\n"
TAME = (
    r"\x1b]0;title\x07[bold]id[/bold]\x1b[2J" + "\\u202e" + r"\x9b31m\n"
)  # as a literal of Python would have it


def test_control_characters_are_escaped_and_letters_are_not():
    assert printable(EVIL) == TAME
    assert printable("Käse 奶酪 [1] \\n 'a'") == "Käse 奶酪 [1] \\n 'a'"
    assert printable("\ud800") == r"\ud800"  # which could not be encoded


def test_tables_escape_titles_names_and_values(capsys):
    print_table(EVIL, [{EVIL: EVIL, "item": 1}])
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out and "\x07" not in out
    squeezed = "".join(out.split())  # a heading may be folded
    assert squeezed.count(TAME.replace(" ", "")) == 3


def test_waiting_is_shown_on_a_terminal_and_leaves_nothing(monkeypatch, capsys):
    with screen.waiting("judging"), screen.loading():
        pass
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with screen.silenced(True), screen.loading(), screen.waiting("judging"):
        pass
    assert capsys.readouterr().err == ""
    with screen.loading():
        pass
    with screen.waiting("judging"):
        pass
    found = capsys.readouterr().err
    assert found.startswith("loading TensorFlow ...\r\x1b[K") and "judging" in found


def test_messages_escape_what_they_quote(capsys):
    with pytest.raises(typer.Exit) as error, messages():
        raise ValueError(f"column {EVIL}")
    assert error.value.exit_code == 1
    assert capsys.readouterr().err == f"error: column {TAME[:-2]}\n\n"
    say("two\nlines")
    assert capsys.readouterr().out == "two\nlines\n"


def test_one_wide_row_stands_upright(capsys):
    row = {f"a_long_name_{n}": n for n in range(12)}
    print_table("Held out", [row])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if "a_long_name_11" in line] == [
        ["a_long_name_11", "11"]
    ]
    print_table("Held out", [{"pass": 1, "loss": 0.5}])  # which fits
    assert "pass   loss" in capsys.readouterr().out


def test_names_are_whole_where_a_table_is_narrow(capsys):
    names = ["listwise_mixture", "product_linear", "softmax_naive"]
    numbers = ("pairs_in_order", "above_naive", "standard_error", "log_likelihood")
    rows = [
        {"model": name, **dict.fromkeys(numbers, 0.12345), "sessions": 60_000}
        for name in names
    ]
    print_table("Candidates, on held-out clicks", rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in names:
        (line,) = (line for line in lines if name in line)
        assert line.split() == [name, *4 * ["0.12345"], "60000"]


@pytest.mark.parametrize("package", ["debias", "simulators", "benchmarks"])
def test_commands_tell_their_version(package):
    done = subprocess.run(
        [sys.executable, "-m", package, "--version"], capture_output=True, text=True
    )
    import debias

    assert (done.returncode, done.stdout) == (0, f"debias {debias.__version__}\n")


def test_silenced_commands_print_errors_and_json_alone(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("session,query,item,click\n0,a,x,1\n0,a,y,0\n1,a,y,1\n1,a,x,0\n")
    command = ["inspect", str(path), "--quiet"]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.output) == (0, "")
    done = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(done.output)["sessions"] == 2
    done = CliRunner().invoke(app, ["inspect", "nowhere.csv", "-q"])
    assert done.exit_code == 1 and "error: " in done.output
    assert "sessions" in CliRunner().invoke(app, command[:2]).output  # loud again


def test_a_pipe_gets_lines_of_progress(capsys, monkeypatch):
    clock = iter([0.0, 4.0, 12.0, 15.0, 30.0])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    with screen.bar("training", 200.0) as advance:
        for _ in range(4):
            advance(50.0)
    captured = capsys.readouterr()
    assert captured.err == "training: 50%, 12 s left\n" and captured.out == ""


def test_the_first_steps_show_no_time_left(capsys, monkeypatch):
    clock = iter([0.0, 60.0])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    with screen.bar("choosing", 1000.0) as advance:
        advance(1.0)
    assert capsys.readouterr().err == "choosing: 0%\n"


def test_the_time_left_is_that_of_all_parts_at_their_mean_speed(capsys, monkeypatch):
    clock = iter([0.0, 100.0, 110.0])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    with screen.bar("candidate 1 of 2", 400.0) as advance:
        advance(100.0)
        advance.rename("candidate 2 of 2")
        advance(100.0)  # ten times as fast
    first, second = capsys.readouterr().err.splitlines()
    assert first == "candidate 1 of 2: 25%, 300 s left"
    assert second == "candidate 2 of 2: 50%, 110 s left"


def test_a_screen_shows_what_is_at_work_and_the_time_left(monkeypatch):
    clock = iter([0.0, 3600.0])
    shown = []
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    rich = SimpleNamespace(
        add_task=lambda label, **how: shown.append((label, how)) or 7,
        update=lambda task, **how: shown.append((task, how)),
    )
    bar = screen.Bar("reading", 4.0, rich)
    bar(1.0)
    bar.rename("training")
    assert shown == [
        ("reading", {"total": 4.0, "left": ""}),
        (7, {"completed": 1.0, "left": "3:00:00 left"}),
        (7, {"description": "training"}),
    ]
