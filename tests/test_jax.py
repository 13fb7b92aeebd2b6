"""What must hold on Keras's JAX backend too, in a process that has it."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).parent / "debias"
SUITES = {
    "losses/test_losses.py": "oracle or tie or nothing or fit or sum_to or numpy",
    "metrics/test_keras.py": "oracle or tie or nothing or fit or sum_to or numpy",
    "models/test_click_models.py": "padding or order",
    "retrieval/models/test_retrieval_models.py": "fits_by_packed and mind",
    "layers/test_reversal.py": "gradient",
}


@pytest.mark.parametrize("suite", SUITES)
def test_suites_hold_on_jax(suite):
    pytest.importorskip("jax")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("these tests run on another backend than the default already")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", SUITES[suite], HERE / suite],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
