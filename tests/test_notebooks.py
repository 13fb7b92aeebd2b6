"""The notebooks run from top to bottom, each in a process of its own, as they stand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_notebooks_run(tmp_path):
    """On copies, for they write files beside themselves."""
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        shutil.copy(path, tmp_path)
    options = ["-c", os.devnull, "-p", "no:cacheprovider", "--nbmake-timeout=240"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbmake", *options, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "6 passed" in done.stdout
