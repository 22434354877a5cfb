"""What a global model may hold, and the mean and the median of several models.

Floats are averaged, complex ones too. Integers and booleans, such as the batch counter of batch normalisation
or a mask, keep their type and, where the models agree, their value.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ouikit.fl.flower import ArrayRecord
from ouikit.fl.strategies.arrays import Arrays, arrays_of
from ouikit.fl.strategies.weights import Vector

Form = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]  # shape and type of every array
TYPES = frozenset(
    {
        *("bool", "float16", "float32", "float64", "complex64", "complex128"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    }
)
_FLOATING = "fc"  # numpy's letters for floats and complex floats


def check_types(record: ArrayRecord) -> None:
    """Raise TypeError, which names them, where arrays are of none of `TYPES` or not stored as numpy does."""
    odd = [
        name for name, array in record.items() if array.dtype not in TYPES or array.stype != "numpy.ndarray"
    ]
    if odd:
        named = ", ".join(f"{name!r} ({record[name].dtype}, {record[name].stype})" for name in odd)
        raise TypeError(
            f"these arrays of the global model have no mean: {named}. Send booleans, integers, float16 to "
            "float64 or complex numbers in numpy's form and byte order; bfloat16 as float32"
        )


def model_of(record: ArrayRecord) -> Arrays:
    """The arrays of a global model, in the memory of the record, which cannot be written to.

    Raises:
        ValueError: an array holds NaN. Infinities are allowed: an attention mask has them.
    """
    arrays = arrays_of(record)
    unset = [
        name for name, array in arrays.items() if array.dtype.kind in _FLOATING and np.isnan(array).any()
    ]
    if unset:
        raise ValueError(
            f"the global model holds NaN in {', '.join(map(repr, unset))}: no client can train it"
        )
    return arrays


def form_of(arrays: Arrays) -> Form:
    """Names, shapes and types, to be compared."""
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def flat(arrays: Arrays) -> Vector:
    """All floats as one vector: parameters and running statistics, real and imaginary parts; no counters."""
    kept = [_reals(array) for array in arrays.values() if array.dtype.kind in _FLOATING]
    return np.concatenate([*kept, np.empty(0)], dtype=np.float64)


def _reals(array: NDArray[Any]) -> NDArray[Any]:
    return array.ravel() if array.dtype.kind == "f" else array.ravel().view(array.real.dtype)


def weighted_mean(models: Sequence[Arrays], weights: Sequence[float]) -> Arrays:
    """Σ w_k θ_k / Σ w_k of models with the same arrays, in the arrays' own precision and in this order.

    The bits are those of Flower's `FedAvg`, except for integers and booleans, of which Flower makes floats:
    where all models agree the value is theirs, and elsewhere the mean is rounded to the nearest one of the
    type (of booleans that is the vote of the weights; a tie is False). A model of weight 0 has no part in it.
    """
    total = sum(weights)
    mean: Arrays = {}
    for model, weight in zip(models, weights, strict=True):
        if not weight:  # 0 times an infinite mask would be NaN
            continue
        for name, array in model.items():
            part = array * (weight / total)
            if name in mean:
                mean[name] += part
            else:
                mean[name] = part
    return {name: _of_type(array, [model[name] for model in models]) for name, array in mean.items()}


def median(models: Sequence[Arrays]) -> Arrays:
    """The median of every number over models with the same arrays; of an even count, the middle of two.

    Of a complex number, that of each part. Integers and booleans are as in `weighted_mean`, equal weights.
    """

    def middle(numbers: list[NDArray[Any]]) -> NDArray[Any]:
        found = np.median(np.stack([_reals(array) for array in numbers]), axis=0)
        first = numbers[0]
        return found.astype(_reals(first).dtype).view(first.dtype).reshape(first.shape)

    mean = weighted_mean(models, [1.0] * len(models))
    return {
        name: middle([model[name] for model in models]) if array.dtype.kind in _FLOATING else array
        for name, array in mean.items()
    }


def _of_type(mean: NDArray[Any], given: list[NDArray[Any]]) -> NDArray[Any]:
    first = given[0]
    if first.dtype.kind in _FLOATING:
        return np.asarray(mean)
    if first.dtype.kind != "b":  # the largest integers of 64 bits are not floats
        least, most = np.iinfo(first.dtype).min, np.iinfo(first.dtype).max
        mean = np.clip(mean, float(least), np.nextafter(float(most), 0.0))
    agreed = np.logical_and.reduce([first == other for other in given])
    return np.where(agreed, first, np.rint(mean).astype(first.dtype))
