"""Runs the commands of users in this process."""

import json

from typer.testing import CliRunner

from debias.__main__ import app


def run(*arguments, code=0):
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def run_json(*arguments):
    return json.loads(run(*arguments, "--json").stdout)
