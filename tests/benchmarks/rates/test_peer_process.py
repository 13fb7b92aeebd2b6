"""Tests of benchmarks.rates.peer_process and of the script it speaks with."""

import shutil
import sys

import numpy as np
import pytest

from benchmarks.rates import peer_process
from benchmarks.rates.peer_process import PYTHON, peer

LOUD = """
def prepare(setup, arrays):
    rounds = []
    def run():
        print("a library that talks")
        rounds.append(arrays["x"].sum() * setup["factor"])
        if len(rounds) > 2:
            raise SystemExit
        return rounds[-1]
    return run, float
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setenv(PYTHON, sys.executable)
    monkeypatch.setattr(
        peer_process, "SCRIPT", shutil.copy(peer_process.SCRIPT, tmp_path)
    )
    return tmp_path


def test_a_peer_is_handed_its_work_and_asked_for_rounds(script):
    (script / "loud.py").write_text(LOUD)
    with peer("loud", {"factor": 2}, {"x": np.arange(4)}) as found:
        assert found.value == 12.0
        assert 0 <= found.seconds() < 1
        with pytest.raises(RuntimeError, match=r"did not run: .* loud"):
            found.cpu_seconds()


def test_what_is_not_installed_is_left_out_with_a_line(script, monkeypatch, capsys):
    (script / "needy.py").write_text(
        "def prepare(setup, arrays):\n    import no_such\n"
    )
    with peer("needy", {}) as found:
        assert found is None
    assert "needy is left out: no no_such" in capsys.readouterr().err
    monkeypatch.delenv(PYTHON)
    with peer("needy", {}) as found:
        assert found is None
    assert f"{PYTHON} is not set" in capsys.readouterr().err
