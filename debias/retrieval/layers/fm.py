"""Factorisation machine as a tower: the sum of all fields."""

from keras import ops

from debias.types import Tensor


def fm_sum(fields: Tensor) -> Tensor:
    """sum_i v_i over the fields, (..., F, d) to (..., d).

    The inner product of the sums of both sides is the sum of the inner products of all
    pairs of a user field and an item field. This sum over pairs equals a factorisation
    machine without the pairs of fields of the same side, which do not depend on both
    user and item.

    Source: Rendle, Factorization Machines, ICDM 2010.

    >>> ops.convert_to_numpy(fm_sum(ops.array([[1.0, 2.0], [3.0, -1.0]]))).tolist()
    [4.0, 1.0]
    """
    return ops.sum(fields, axis=-2)
