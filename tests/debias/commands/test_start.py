"""A command starts in silence, fails aloud and stops at Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written\n"
    "I0000 00:00:1795956625.584008   18838 port.cc:153] custom operations are on.\n"
)
FATAL = "F0000 00:00:1795956625.584008   18838 cpu.cc:7] this CPU lacks AVX\n"
IMPORT = "from debias.commands.start import quiet_start; quiet_start(); "


def started(folder, module, statement=IMPORT + "import tensorflow", log=NOISE, **more):
    """A process that imports `module`, which logs first, as TensorFlow."""
    begin = f"import os\nos.write(2, {log.encode()!r})\n" if log else ""
    (folder / "tensorflow.py").write_text(begin + module)
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-c", statement],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"], **more},
        capture_output=True,
        text=True,
    )


def test_the_log_of_an_import_that_works_is_dropped_and_nothing_else(tmp_path):
    done = started(tmp_path, "os.write(2, b'NumPy is too old\\n')")
    assert (done.returncode, done.stderr) == (0, "NumPy is too old\n")
    later = f"{IMPORT}import tensorflow, os; os.write(2, b'I0000 later')"
    assert started(tmp_path, "", later).stderr == "I0000 later"


def test_an_import_that_fails_shows_its_log(tmp_path):
    done = started(tmp_path, "raise ImportError('libcudart is missing')")
    assert done.returncode == 1 and done.stderr.startswith(NOISE)
    assert "ImportError: libcudart is missing" in done.stderr


def test_a_process_that_dies_of_its_import_shows_why(tmp_path):
    done = started(tmp_path, f"os.write(2, {FATAL.encode()!r}); os.abort()")
    assert done.returncode == -signal.SIGABRT and done.stderr == NOISE + FATAL


def test_the_log_appears_to_whoever_asks_for_it(tmp_path):
    assert started(tmp_path, "", TF_CPP_MIN_LOG_LEVEL="0").stderr == NOISE


def test_keras_is_quietened_too_and_what_it_made_is_not_collected_again(tmp_path):
    (tmp_path / "keras.py").write_text("import tensorflow\nmade = [[]]")
    look = (
        "import gc, keras; "
        "print(gc.isenabled(), any(o is keras.made for o in gc.get_objects()))"
    )
    done = started(tmp_path, "", IMPORT + look)
    assert (done.stdout, done.stderr) == ("True False\n", "")


def test_what_no_command_asks_of_keras_is_not_imported_with_it(tmp_path):
    for name in ("jax", "pandas"):
        (tmp_path / f"{name}.py").write_text("")
    optional = "".join(
        f"try:\n    import {name}\n    print({name!r})\nexcept ImportError: pass\n"
        for name in ("jax", "pandas")
    )
    later = f"{IMPORT}import tensorflow, pandas; print('later', pandas.__name__)"
    assert started(tmp_path, optional, later).stdout == "later pandas\n"
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    for more in ({"KERAS_HOME": str(tmp_path)}, {"KERAS_BACKEND": "jax"}):
        assert (
            started(tmp_path, optional, later, **more).stdout == "jax\nlater pandas\n"
        )


def test_a_closed_standard_error_is_no_hindrance(tmp_path):
    closed = f"import os; os.close(2); {IMPORT}import tensorflow"
    done = started(tmp_path, "print(7)", closed, log="")
    assert (done.returncode, done.stdout) == (0, "7\n")


def interrupted(body, times=1):
    """Exit status and standard error of a command that gets SIGINT once it is ready."""
    program = (
        "import gc, hashlib, signal, time, typer\n"
        # Whoever starts the tests may have it ignored. Set here, for setting it before
        # the program starts would fork a process that has threads.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from debias.commands.screen import messages\n"
        "from debias.commands.start import stoppable\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def main():\n"
        "    with stoppable(), messages():\n"
        f"{body}"
        "app()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        for _ in range(times):
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    return process.returncode, said


SAID = "interrupted; no output is incomplete. Give the same command again to resume\n"
IN_A_CALLBACK = """
        def callback(*of):  # what it raises Python prints and drops
            gc.callbacks.remove(callback)
            print("ready", flush=True)
            time.sleep(10)
        gc.callbacks.append(callback)
        gc.collect()
        for _ in range(1000):
            time.sleep(0.01)
"""
IN_NATIVE_CODE = """
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 27)  # a minute without the lock
"""


def test_an_interrupt_that_a_callback_swallowed_still_stops():
    assert interrupted(IN_A_CALLBACK) == (130, SAID)


def test_one_interrupt_is_one_line():
    body = '        print("ready", flush=True)\n        time.sleep(20)\n'
    assert interrupted(body) == (130, SAID)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_second_interrupt_ends_native_code_at_once():
    assert interrupted(IN_NATIVE_CODE, times=2) == (130, "stopped at once\n")


def test_an_interrupt_that_is_ignored_stays_ignored():
    from debias.commands.start import stoppable

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
