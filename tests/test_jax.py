"""What must hold on Keras's JAX backend too, in one process that has it."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).parent / "debias"
SUITES = {  # files or folders, and which of their tests
    # The largest call of each loss, and padding whose gradient could be nan.
    "losses": "oracle and True-True or tie or nothing and nan or fit and True "
    "or sum_to",
    "metrics/test_keras.py": "tie or nothing or numpy and not False",
    # Models whose parts no other one has.
    "models/test_click_models.py": "padding and (mixture or listwise or xpa or "
    "disentangled) and not of_relevance and not by_context or pair_debias and "
    "(fit or packed)",
    "retrieval/models/test_retrieval_models.py": "fits_by_packed and mind",
    "layers/test_reversal.py": "gradient",
}


def test_suites_hold_on_jax():
    pytest.importorskip("jax")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("these tests run on another backend than the default already")
    chosen = []
    for suite, words in SUITES.items():
        path = HERE / suite
        files = [path] if path.suffix else path.glob("test_*.py")
        chosen += [f"({file.name} and ({words}))" for file in files]
    command = [sys.executable, "-m", "pytest", "-k", " or ".join(chosen)]
    done = subprocess.run(
        [*command, *(HERE / suite for suite in SUITES)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
