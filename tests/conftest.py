"""Fixtures that several folders of tests share."""

import gc
import os
from pathlib import Path

import pytest

gc.disable()
# Test processes fill the cores already, and threads of one would wait for another's.
for pool in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(pool, "1")
# Files that take longest begin first, so that no process ends long after another.
LONGEST = (
    "acceptance/test_documents.py",
    "acceptance/test_rankers.py",
    "acceptance/test_retrieval.py",
    "debias/engine/test_distributed.py",
    "test_readme.py",
    "test_site.py",
    "test_notebooks.py",
    "test_jax.py",
    "debias/models/test_click_models.py",
    "debias/commands/test_commands.py",
)


def pytest_collection_modifyitems(items):
    """Each file goes to one process (`--dist loadfile`), in the order of collection."""
    first = {Path(__file__).parent / name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


def pytest_collection_finish():
    """Spares the garbage collector the libraries, which all tests have imported.

    It would go through their half a million objects again and again.
    """
    gc.enable()
    gc.freeze()


@pytest.fixture(scope="module")
def eagerly():
    """TensorFlow without traces, which cost more than small fits learn."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
