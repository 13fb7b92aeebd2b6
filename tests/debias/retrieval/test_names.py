"""Tests of the package debias.retrieval: promised names, loaded when used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import debias.retrieval


def test_every_promised_name_is_there_and_is_what_type_checkers_see():
    found = debias.retrieval
    assert all(getattr(found, name) is not None for name in found.__all__)
    assert set(found.__all__) == set(found._HOME) <= set(dir(found))
    tree = ast.parse(Path(found.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("debias.")
        for alias in node.names
    }
    home = {name: f"debias.retrieval.{module}" for name, module in found._HOME.items()}
    assert typed == home
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        found.Nothing  # noqa: B018


def test_the_import_loads_no_tensorflow_and_reaches_every_package():
    program = """
import sys, debias.retrieval
assert not {"tensorflow", "keras", "faiss"} & set(sys.modules)
assert debias.retrieval.serving.__name__ == "debias.retrieval.serving"
assert not {"tensorflow", "keras", "faiss"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
