"""A prompt of somebody who installed the package: one process per command."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

LOGGED = "what TensorFlow logs"
NEVER = {
    "a traceback": re.compile(r"Traceback \(most recent call last\)"),
    LOGGED: re.compile(r"^[IWE]\d{4} \d\d:|absl::Init", re.M),
    "a control character": re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]"),
}

# A shell that runs the tests in the background has SIGINT ignored. Set before exec, and
# not by `preexec_fn`, which would fork a process that has threads.
UNIGNORED = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
MAPPED = ["-c", "session=sid", "-c", "item=doc", "-c", "features=f_*"]


class Prompt:
    """Runs commands in a folder, of the environment that has the package.

    Args:
        environment: Folder of the virtual environment.
        folder: Where commands are given.
    """

    def __init__(self, environment: Path, folder: Path) -> None:
        self.environment, self.folder = environment, folder
        folder.mkdir(parents=True, exist_ok=True)

    def variables(self, **more):
        # None but these: neither the tree nor what a test run has set is seen.
        path = [self.environment / "bin", *os.environ["PATH"].split(os.pathsep)]
        return {
            "PATH": os.pathsep.join(map(str, path)),
            "HOME": str(self.environment.parent),
            "LANG": "C.UTF-8",
            **more,
        }

    def run(self, *command, code=0, noisy=False, **variables):
        """What a command printed, after a look at all that it must never print.

        Args:
            command: Name and arguments.
            code: Its exit status.
            noisy: Whether it is a script that is not ours to silence.
            variables: Of its environment.
        """
        with self.started(*command, **variables) as process:
            said, _ = process.communicate(timeout=600)
        shown = f"$ {' '.join(map(str, command))}\n{said}"
        assert process.returncode == code, shown
        for what, pattern in NEVER.items():
            found = pattern.search(said)
            assert not found or (noisy and what == LOGGED), f"{what}: {shown!r}"
        return said

    def debias(self, *arguments, code=0):
        return self.run("debias", *arguments, code=code)

    def train(self, log, model, *more):
        """Learns from one of the logs of `worlds`, in a folder called as the model."""
        fast = ["--epochs", "1", "--batch-size", "64", "--model", model, "-o", model]
        return self.json("train", log, *MAPPED, *fast, *more)

    def json(self, *arguments):
        return json.loads(self.debias(*arguments, "--json", "--quiet"))

    @contextmanager
    def started(self, *command, **variables):
        """A process in a group of its own, which is killed at the end."""
        process = subprocess.Popen(
            [sys.executable, "-c", UNIGNORED, *(str(each) for each in command)],
            cwd=self.folder,
            env=self.variables(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
