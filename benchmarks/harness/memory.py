"""Frees memory between measurements."""

import gc


def forget() -> None:
    """Frees the models of the previous row, which hold reference cycles."""
    import keras

    keras.backend.clear_session()
    gc.collect()
