"""Fixtures that several folders of tests share."""

import gc

import pytest

gc.disable()


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
