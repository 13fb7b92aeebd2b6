"""A peer library in another Python process that does one round at a time.

The peers of `benchmarks.peers` need libraries that conflict with this library. Peers
are measured if the environment variable `DEBIAS_PEERS_PYTHON` is the path of a Python
with these libraries. Missing peers are left out, and a message names each of them. To
create such an environment:

python3 -m venv peers && peers/bin/pip install ".[peers]"
DEBIAS_PEERS_PYTHON=peers/bin/python python -m benchmarks speed
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

PYTHON = "DEBIAS_PEERS_PYTHON"
SCRIPT = Path(__file__).parents[1] / "peers" / "rounds.py"


class Peer(NamedTuple):
    """A peer after one warm-up round.

    Attributes:
        value: Result of the first round, to compare with the result of this library.
        round: Function that does another round, and returns its "seconds" (wall-clock
            time) and "cpu" (processor time).
    """

    value: Any
    round: Callable[[], dict[str, float]]

    def seconds(self) -> float:
        return self.round()["seconds"]

    def cpu_seconds(self) -> float:
        return self.round()["cpu"]


@contextmanager
def peer(
    name: str,
    setup: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Peer | None]:
    """The peer of module `name` in `benchmarks.peers`; None if it is not available.

    Args:
        name: Name of the module.
        setup: First argument of the module's `prepare`, as JSON.
        arrays: Second argument of `prepare`, passed through a temporary file.

    Raises:
        RuntimeError: The peer stopped. The error message of the peer is on standard
            error.
    """
    python = os.environ.get(PYTHON)
    if not python:
        print(f"{name} is left out: {PYTHON} is not set", file=sys.stderr)
        yield None
        return
    command = [python, str(SCRIPT), name]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, **(arrays or {}))  # type: ignore[arg-type]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def request(line: str) -> dict[str, Any]:
            assert process.stdin is not None and process.stdout is not None
            with suppress(BrokenPipeError):  # then there will be no answer either
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise RuntimeError(f"a peer did not run: {' '.join(command)}")
            return json.loads(answer)

        try:
            found = request(json.dumps({"setup": setup, "arrays": str(path)}))
            if "missing" in found:
                print(f"{name} is left out: no {found['missing']}", file=sys.stderr)
                yield None
            else:
                yield Peer(found["value"], lambda: request("round"))
        finally:
            process.communicate()  # it exits at the end of its input
