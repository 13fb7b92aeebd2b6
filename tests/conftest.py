"""Fixtures that several folders of tests share."""

import pytest


@pytest.fixture(scope="module")
def eagerly():
    """TensorFlow without traces, which cost more than small fits learn."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
