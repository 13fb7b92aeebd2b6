"""The package as a wheel, in an environment of its own, outside the tree."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance import worlds
from tests.acceptance.prompt import Prompt

ROOT = Path(__file__).parents[2]
PACKAGES = ("debias", "simulators", "benchmarks")
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "acceptance"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def once(path):
    """Yields whether this process is to make `path`; the others wait until it is."""
    lock, ready = path.with_suffix(".lock"), path.with_suffix(".ready")
    try:
        lock.mkdir()  # and it stays, so that who comes later makes nothing again
    except FileExistsError:
        while not ready.exists():
            assert lock.exists(), f"another process failed to make {path}"
            time.sleep(0.1)
        yield False
        return
    try:
        yield True
        ready.touch()
    except BaseException:
        lock.rmdir()
        raise


def build_wheel(folder):
    """The wheel of the tree, built from a copy, for building leaves files behind."""
    tree, wheels = folder / "tree", folder / "wheels"
    junk = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=junk)
    for name in SOURCES:
        shutil.copy(ROOT / name, tree / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", wheels, tree)
    (wheel,) = wheels.glob("*.whl")
    return wheel


def pip(command, *arguments, python=sys.executable):
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            command,
            *options,
            *arguments,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def environment(shared):
    """Sees the libraries of the running environment, but for this package.

    Folders that a `.pth` file names are searched, and their own `.pth` files are not
    read: the installation that points into the tree stays unseen.
    """
    made = shared / "environment"
    with once(made) as to_make:
        if to_make:
            venv.create(made, symlinks=True)
            libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
            where = {"base": made, "platbase": made}
            site = Path(sysconfig.get_path("purelib", "venv", where))
            (site / "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n")
            pip("install", build_wheel(shared), python=made / "bin" / "python")
    return made


@pytest.fixture(scope="session")
def prompt_in(shared, environment):
    """Makes a prompt in a folder of that name."""
    return lambda name: Prompt(environment, shared / name)


@pytest.fixture(scope="session")
def ranker(shared, prompt_in):
    """A prompt where a mixture was learned from a log with devices.

    `mixture` is its folder, `mixture.parquet` the candidates as it ranks them.
    """
    prompt = prompt_in("ranker")
    with once(shared / "ranker") as to_make:
        if to_make:
            log = worlds.with_device(worlds.shown())
            worlds.write(prompt.folder / "log.parquet", log)
            worlds.write(prompt.folder / "candidates.parquet", worlds.candidates())
            report = prompt.train("log.parquet", "mixture")
            assert len(report["devices"]) == 2
            prompt.debias(
                "rank", "mixture", "candidates.parquet", "-o", "mixture.parquet"
            )
            prompt.debias("export", "mixture", "-o", "mixture.onnx")
    return prompt
