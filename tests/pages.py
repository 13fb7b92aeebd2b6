"""Runs the code of pages as a reader would: `python pages.py PAGE...`.

The Python and the shell blocks of a page run in order, in a folder and with names of
their own. Commands of this package run within this process, which has loaded its
libraries once; all others run in a shell.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What is shown there is done here with less of everything.
SMALLER = {
    "debias demo": "debias demo --sessions 600",
    "debias train demo/clicks.csv": "debias train demo/clicks.csv --epochs 4",
    'debias.fit("product", reading.log, reading.data)': (
        'debias.fit("product", reading.log, reading.data, '
        "config=debias.TrainingConfig(epochs=4))"
    ),
}
PLAIN = {"sid": "session", "doc": "item"}
MAKE_LOGS = ("events", "logs", "propensities")  # pages that write a log themselves
BLOCK = re.compile(r"^( *)```(python|bash)\b[^\n]*\n(.*?)^ *```", re.S | re.M)


def blocks(text):
    """Language and code of each block, without the indentation of a list or a tab."""
    for indent, language, code in BLOCK.findall(text):
        code = re.sub(rf"^{indent}", "", code, flags=re.M)
        for usual, smaller in SMALLER.items():
            code = code.replace(usual, smaller)
        yield language, code


def write_files():
    """A log and candidates with plain names, which some pages take for given."""
    from tests.acceptance import worlds

    for path, columns in (
        ("log.parquet", worlds.shown(queries=30)),
        ("candidates.parquet", worlds.candidates()),
    ):
        plain = {PLAIN.get(name, name): value for name, value in columns.items()}
        worlds.write(Path(path), plain)


def run_page(page):
    text = page.read_text(encoding="utf-8")
    if "log.parquet" in text and page.stem not in MAKE_LOGS:
        write_files()
    names = {"__name__": "__main__"}
    for number, (language, code) in enumerate(blocks(text), 1):
        if language == "python":
            exec(compile(code, f"{page.name}, block {number}", "exec"), names)
        else:
            for line in code.replace("\\\n", " ").splitlines():
                run_line(line)


def run_line(line):
    words = shlex.split(line, comments=True)
    if words[:1] == ["debias"]:
        from debias.__main__ import app

        given = words[1:]
    elif words[:3] == ["python", "-m", "simulators"]:
        from simulators.__main__ import app

        given = words[3:]
    else:
        if words:
            subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True)
        return
    code = app(given, standalone_mode=False)
    assert code in (None, 0), f"{line}: exit status {code}"


def main(pages):
    from debias.commands.start import quiet_start

    quiet_start()  # as a command imports TensorFlow: in half the time
    for page in [Path(page).resolve() for page in pages]:
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(f"{page.name} ...", file=sys.stderr)
            try:
                run_page(page)
            finally:
                os.chdir(page.parent)
        print(
            f"{page.name}: {time.process_time() - started:.1f} s of CPU",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
