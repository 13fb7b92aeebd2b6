"""Every shell block of README and scaling, in order, as a reader pastes it.

The other pages of the site run in one process: `tests/test_site.py`.
"""

import re
from pathlib import Path

import pytest

from tests.acceptance import worlds

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "scaling.md"]
# These two install the package, and run all tests or measure a table.
SETS_UP = re.compile(r"<!-- (quick|test)-command -->.*?<!-- /\1-command -->", re.S)
# What is measured in hours there is done here with less of everything.
SMALLER = {"--sessions": 2000, "--queries": 60}
# A cluster of one machine.
CLUSTER = {"SLURM_NTASKS": "1", "SLURM_NODELIST": "here"}
STUBS = {
    "scontrol": 'echo "127.0.0.1"',
    "srun": 'shift; export SLURM_PROCID=0; exec "$@"',
}


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", SETS_UP.sub("", text), re.S)


def smaller(block):
    for option, most in SMALLER.items():
        block = re.sub(
            rf"(?<={option} )\d+", lambda n, k=most: min(n[0], str(k), key=int), block
        )
    return re.sub(r"debias train (?!.*--epochs)", "debias train --epochs 2 ", block)


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def page(request, prompt_in):
    """A page, and a prompt in a folder with the files that the page takes for given."""
    prompt = prompt_in(f"page-{request.param.stem}")
    text = request.param.read_text(encoding="utf-8")
    worlds.write(prompt.folder / "log.parquet", worlds.shown(queries=30))
    worlds.write(prompt.folder / "candidates.parquet", worlds.candidates())
    for code in blocks(text, "python"):
        if "DEBIAS_COORDINATOR" in code:
            (prompt.folder / "train.py").write_text(code)
    bin = prompt.folder / "bin"
    bin.mkdir()
    for name, code in STUBS.items():
        (bin / name).write_text(f"#!/bin/bash\n{code}\n")
        (bin / name).chmod(0o755)
    return text, prompt


def test_blocks_run_in_order(page):
    text, prompt = page
    for block in blocks(text, "bash"):
        script = 'PATH="bin:$PATH"\n' + smaller(block)
        noisy = "train.py" in block
        prompt.run("bash", "-euo", "pipefail", "-c", script, noisy=noisy, **CLUSTER)
