"""Finds the distinct rows of features that change between sessions."""

import numpy as np
import pyarrow as pa

_OFTEN = 1 << 18  # rows held before they are merged


class Distinct:
    """Assigns numbers to distinct rows, in order of first appearance.

    Args:
        width: Number of values in a row.

    >>> rows = Distinct(2)
    >>> rows.add(np.array([[1, 2], [3, 4]], np.int32))
    >>> rows.add(np.array([[3, 4]], np.int32))
    >>> [found.tolist() for found in rows.found()]
    [[0, 1, 1], [[1, 2], [3, 4]]]
    """

    def __init__(self, width: int):
        self._type = pa.binary(4 * width)
        self._chunks: list[pa.DictionaryArray] = []
        self._held, self._merged = 0, 0

    def add(self, rows: np.ndarray) -> None:
        """Adds rows (n, width) of int32 or another 32-bit type."""
        buffer = pa.py_buffer(np.ascontiguousarray(rows))
        array = pa.FixedSizeBinaryArray.from_buffers(
            self._type, len(rows), [None, buffer]
        )
        self._chunks.append(array.dictionary_encode())
        self._held += len(self._chunks[-1].dictionary)
        if self._held > self._merged + max(self._merged, _OFTEN):
            self._merge()

    def _merge(self) -> None:
        whole = pa.chunked_array(self._chunks, pa.dictionary(pa.int32(), self._type))
        whole = whole.unify_dictionaries().combine_chunks()
        self._chunks = [
            whole if isinstance(whole, pa.DictionaryArray) else whole.chunk(0)
        ]
        self._held = self._merged = len(self._chunks[0].dictionary)

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """The number of each added row, and the distinct rows, (U, width) int32."""
        width = self._type.byte_width // 4
        if not self._chunks:
            return np.zeros(0, np.int32), np.zeros((0, width), np.int32)
        self._merge()
        (whole,) = self._chunks
        rows = np.frombuffer(whole.dictionary.buffers()[1], np.int32)
        rows = rows[whole.dictionary.offset * width :].reshape(-1, width)
        return whole.indices.to_numpy(), rows[: len(whole.dictionary)]
