"""Tests of the package debias.retrieval: promised names, loaded when used."""

import re
import subprocess
import sys
from types import ModuleType

import debias.retrieval


def test_stub_holds_the_names_of_the_table_and_each_is_there():
    table = debias.retrieval.__doc__.split("The names in this table")[0]
    found = {name: getattr(debias.retrieval, name) for name in debias.retrieval.__all__}
    assert set(re.findall(r"`(\w+)`", table)) == {
        name for name, value in found.items() if not isinstance(value, ModuleType)
    }


def test_the_import_loads_no_tensorflow_and_reaches_every_package():
    program = """
import sys, debias.retrieval
assert not {"tensorflow", "keras", "faiss"} & set(sys.modules)
assert debias.retrieval.serving.__name__ == "debias.retrieval.serving"
assert not {"tensorflow", "keras", "faiss"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
