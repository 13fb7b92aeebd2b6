"""The README keeps its word: snippets run, commands exist, numbers are the results'."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "benchmarks").glob("*.md")),
    ROOT / "docs" / "scaling.md",  # the other pages of the site: see test_site.py
]
SNIPPET = re.compile(r"```python\n(.*?)```", re.S)
RUN = """
import os, runpy, sys
from debias.commands.start import quiet_start
quiet_start()  # as a command imports TensorFlow: in half the time
for path in sys.argv[1:]:
    os.chdir(os.path.dirname(path))
    runpy.run_path(path)
"""
"""Snippets of a page have one process, a folder and names of their own."""


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if SNIPPET.search(page.read_text(encoding="utf-8"))],
    ids=lambda page: page.name,
)
def test_snippets_run(page, tmp_path):
    paths = []
    for number, code in enumerate(SNIPPET.findall(page.read_text(encoding="utf-8"))):
        paths.append(tmp_path / str(number) / f"snippet_{number}.py")
        paths[-1].parent.mkdir()
        paths[-1].write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN, *paths],
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_tables_and_numbers_are_those_of_the_results():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_the_command_that_the_readme_gives():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("<!-- test-command -->")[1].split("<!-- /test-command -->")[0]
    assert "pytest" in block and "pip install" in block
    assert "test-command" in (ROOT / ".ci" / "run").read_text()


def test_nothing_speaks_of_the_machine_it_was_written_on():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    suspects = re.compile(r"/home/|/root/|/work/|/tmp/[a-z]")
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".cff"} and path.exists():
            text = path.read_text(encoding="utf-8")
            found = suspects.search(text)
            assert not found or path == Path(__file__), f"{name}: {found}"
