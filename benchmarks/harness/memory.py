"""What one measurement leaves to the next: nothing."""

import gc


def forget() -> None:
    """Frees the models of the row before, which refer to themselves."""
    import keras

    keras.backend.clear_session()
    gc.collect()
