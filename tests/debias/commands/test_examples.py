"""Tests of debias.commands.examples: every command has an example that it takes."""

import shlex

import pytest
import typer

from debias.__main__ import app
from debias.commands.examples import EXAMPLES, PANELS

ROOT = typer.main.get_command(app)


def commands(group=ROOT, prefix=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands())


def test_every_command_has_an_example_and_a_group():
    assert set(COMMANDS) == set(EXAMPLES)
    grouped = [name for names in PANELS.values() for name in names.split()]
    assert sorted(grouped) == sorted(ROOT.commands)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_taken_and_stands_in_the_help(name):
    given = shlex.split(EXAMPLES[name])
    head = ["debias", *name.split()]
    assert given[: len(head)] == head
    with COMMANDS[name].make_context(name, given[len(head) :]):
        pass  # its options and arguments are parsed
    assert COMMANDS[name].epilog == f"Example: {EXAMPLES[name]}"


@pytest.mark.parametrize("name", COMMANDS)
def test_first_line_of_a_help_is_a_sentence_that_fits(name):
    first, *rest = COMMANDS[name].help.split("\n\n")
    assert first.endswith(".") and len(first) <= 100
    assert all("\n" not in text for text in rest)  # lines flow


def test_all_but_the_service_are_quiet_and_speak_json():
    for name, command in COMMANDS.items():
        options = {option for each in command.params for option in each.opts}
        assert "--quiet" in options, name
        assert "--json" in options or name == "serve", name
