"""The site builds, needs no network, names what is promised, and its code runs."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType

import pytest

from debias.presets import PRESETS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Starts processes of a backend of its own: `test_readme` and `acceptance` run its code.
OTHER = {DOCS / "scaling.md"}
PAGES = sorted({*DOCS.rglob("*.md")} - OTHER)
WITH_CODE = [p for p in PAGES if re.search("```(python|bash)\n", p.read_text("utf-8"))]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
# What a browser loads by itself.
LOADED = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^\s>\"]+"
)


def test_site_builds_without_a_warning_and_loads_nothing_from_a_network(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    built = list(tmp_path.rglob("*.html"))
    assert {p.stem for p in PAGES} <= {p.stem for p in built}
    for path in built:
        text = path.read_text(encoding="utf-8")
        assert not LOADED.search(text), (path, LOADED.search(text))
        # A doctest that is taken for Markdown is a quotation of a quotation.
        assert not re.search(r"<blockquote>\s*<blockquote>", text), path
        # It names the search and lets a keyboard scroll code.
        assert "assets/access.js" in text, path
    styles = [p.read_text("utf-8") for p in tmp_path.rglob("*.css")]
    assert not any(re.search(r"url\(\"?https?:", style) for style in styles)


def documented():
    """The names that the pages of reference describe."""
    lines = [p.read_text("utf-8") for p in (DOCS / "reference").glob("*.md")]
    return set(re.findall(r"^::: (\S+)$", "\n".join(lines), re.M))


def promised():
    """The names under "Promised names" in ARCHITECTURE.md, with their module."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    text = text.split("## Promised names")[1].split("\n## ")[0]
    for entry in re.split(r"^- ", text, flags=re.M)[1:]:
        for sentence in re.split(r"(?<=\.)\s", entry):
            module, _, names = sentence.partition(":")
            for name in re.findall(r"`(\w+)`", names):
                yield f"{module.strip().strip('`')}.{name}"


def test_list_of_promised_names_and_stub_and_site_agree():
    tree = ast.parse((ROOT / "debias" / "__init__.pyi").read_text(encoding="utf-8"))
    names = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    listed = set(promised())
    assert {f"debias.{name}" for name in names} == {
        name for name in listed if re.fullmatch(r"debias\.\w+", name)
    }
    assert "debias.Product" in listed and "debias.layers.GradientReversal" in listed
    pages = {name.rpartition(".")[2] for name in documented()}
    missing = {name.rpartition(".")[2] for name in listed} - pages
    assert missing <= {"click_models", "__all__"}, missing  # of modules as a whole


@pytest.mark.parametrize("package", ["losses", "metrics", "retrieval", "simulators"])
def test_site_has_all_of_a_package_that_promises_all(package):
    from importlib import import_module

    name = package if package == "simulators" else f"debias.{package}"
    found = import_module(name)
    own = {
        f"{name}.{each}"
        for each in found.__all__
        if not isinstance(getattr(found, each), ModuleType)
    }
    assert own == {each for each in documented() if each.rpartition(".")[0] == name}


def test_page_on_models_names_every_preset():
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    named = set(
        re.findall(r"`(\w+)`", text.split("## The models")[1].split("\n## ")[0])
    )
    assert set(PRESETS) <= named


def test_code_of_the_pages_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "pages.py", *WITH_CODE],
        env={
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "MPLBACKEND": "agg",
            "TYPER_STANDARD_TRACEBACK": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]


def shown(command):
    """Page and match of each command that is shown but cannot run in the suite."""
    for page in [*PAGES, *OTHER]:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```text\n(.*?)```", text, re.S):
            for line in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.M)[1:]:
                if found := re.match(command, line, re.S):
                    yield page.stem, found


def typed():
    """Words after `debias`, which is also the name of the image of Docker."""
    for page, found in shown(r"(?:docker run .* )?(?:\S*/)?debias ([^\n]*)"):
        yield pytest.param(found[1], id=f"{page}: {found[1]}")


def sent():
    """Path and body of each request to the service."""
    for page, found in shown(r"curl -s localhost:8000(/\w+) .*-d '(.*)'"):
        yield pytest.param(found[1], found[2], id=f"{page}: {found[1]}")


@pytest.mark.parametrize("line", [*typed()])
def test_commands_that_are_only_shown_exist_with_their_options(line):
    import shlex

    import typer

    from debias.__main__ import app

    command, words = typer.main.get_command(app), shlex.split(line, comments=True)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    with command.make_context("debias", words):
        pass  # its options and arguments are parsed


@pytest.mark.parametrize(("path", "body"), [*sent()])
def test_requests_that_are_only_shown_are_understood(path, body):
    schemas = pytest.importorskip("debias.serve.schemas", reason="no extra serve")
    kinds = {
        "/retrieve": schemas.RetrieveRequest,
        "/rank": schemas.RankRequest,
        "/recommend": schemas.RecommendRequest,
    }
    assert schemas.decoded(kinds[path], body.encode())


def test_blocks_are_run_or_are_no_code_of_this_library():
    languages = set()
    for page in [*PAGES, *OTHER]:
        languages |= set(re.findall(r"^ *```(\w+)", page.read_text("utf-8"), re.M))
    # `py` is code of another library; `text` is checked above.
    assert languages <= {"python", "bash", "text", "py", "json", "yaml"}


def test_notebooks_are_small_and_were_executed_without_an_error():
    assert len(NOTEBOOKS) == 6
    for path in NOTEBOOKS:
        assert path.stat().st_size < 100_000, path
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        counts = [c["execution_count"] for c in cells if c["cell_type"] == "code"]
        assert counts == list(range(1, len(counts) + 1)), path
        kinds = {out["output_type"] for c in cells for out in c.get("outputs", ())}
        assert "error" not in kinds, path


def test_what_the_extra_test_brings_is_explained():
    entries = re.search(
        r'EXTRAS\["test"\] = \[(.*?)\n\]', (ROOT / "setup.py").read_text("utf-8"), re.S
    )[1]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = text.split("## Packages in the extra `test`")[1].split("\n## ")[0]
    extras = set(re.findall(r'EXTRAS\["(\w+)"\]', entries))
    packages = set(re.findall(r'^ *"([\w-]+)', entries, re.M))
    assert "docs" in extras and "pandas" in packages
    assert {f"`{name}`" for name in extras} <= set(re.findall(r"`\w+`", text))
    assert packages <= set(re.findall(r"[\w-]+", text))


def test_extras_that_pages_install_exist():
    pages = [*PAGES, *OTHER, ROOT / "README.md"]
    texts = " ".join(page.read_text(encoding="utf-8") for page in pages)
    named = re.findall(r"pip install[^\n]*\.\[([\w,]+)\]", texts)
    assert named
    there = metadata("debias-ranking").get_all("Provides-Extra")
    assert {name for names in named for name in names.split(",")} <= {*there}


def test_no_word_is_misspelt():
    pytest.importorskip("codespell_lib", reason="codespell is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
