"""A factorisation machine as a tower, which is the sum of all fields."""

from keras import ops

from debias.types import Tensor


def fm_sum(fields: Tensor) -> Tensor:
    """Sums the fields, (..., F, d) to (..., d).

    The inner product of a user's sum and an item's sum is the sum of the inner products
    of all pairs of a user field and an item field. A factorisation machine also has
    pairs of two user fields and of two item fields. The tower omits pairs within one
    side, because such pairs do not depend on both the user and the item.

    Source: Rendle, Factorization Machines, ICDM 2010.

    >>> ops.convert_to_numpy(fm_sum(ops.array([[1.0, 2.0], [3.0, -1.0]]))).tolist()
    [4.0, 1.0]
    """
    return ops.sum(fields, axis=-2)
