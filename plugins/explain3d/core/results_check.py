"""Whether the arrays of a result fit each other and their metadata."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ResultFileError
from .results_archive import Arrays

_KINDS = {'f': 'floating-point numbers', 'i': 'integers', 'u': 'counts', 'b': 'flags'}
#: Scores are products and sigmoids, in half precision too.
_SCORE_SLACK = 1e-3


def checksum(name: str, array: np.ndarray) -> int:
    """Returns a number that tells an array from others, its name, type and shape included."""
    header = f'{name} {array.dtype.str} {array.shape}'.encode()
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(content, zlib.crc32(header))


def seal(meta: Mapping[str, Any], arrays: Arrays) -> Arrays:
    """Returns metadata and arrays as a file holds them.

    Args:
        meta: Plain data; ``arrays``, their names, and ``checksums`` are added.
        arrays: By name.
    """
    sums = {name: checksum(name, array) for name, array in arrays.items()}
    meta = {**meta, 'arrays': sorted(arrays), 'checksums': sums}
    # As bytes: a text array would take four for every character.
    return {'metadata': np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays}


def unseal(arrays: Arrays) -> dict[str, Any]:
    """Returns the metadata of arrays that ``seal`` returned.

    Raises:
        ResultFileError: If there are none, or the arrays are not those that were written.
    """
    if 'metadata' not in arrays:
        raise ResultFileError('it has no metadata')
    meta = json.loads(arrays['metadata'].tobytes())
    if not isinstance(meta, dict):
        raise ResultFileError('its metadata are no dictionary')
    check_names(meta, arrays)
    return meta


def check_names(meta: Mapping[str, Any], arrays: Arrays) -> None:
    """Raises unless exactly the arrays are there that were written, as they were written.

    Raises:
        ResultFileError: If not.
    """
    check_texts(meta, 'arrays')
    different = {'metadata', *meta['arrays']} ^ set(arrays)
    if different:
        raise ResultFileError(f'{sorted(different)} missing or not ours')
    if 'checksums' in meta:  # Files of earlier versions have none.
        check_checksums(meta['checksums'], arrays)


def check_checksums(stored: Mapping[str, int], arrays: Arrays) -> None:
    """Raises unless each array is the one that was written under its name.

    Raises:
        ResultFileError: If not.
    """
    changed = [
        name
        for name, array in arrays.items()
        if name != 'metadata' and stored.get(name) != checksum(name, array)
    ]
    if changed:
        raise ResultFileError(f'{sorted(changed)} are not the arrays that were written')


def check_keys(meta: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]]) -> None:
    """Raises unless the metadata has an entry of the right type under each key.

    Raises:
        ResultFileError: If not.
    """
    for key, kind in kinds.items():
        if key not in meta:
            raise ResultFileError(f'its metadata have no {key!r}')
        if not isinstance(meta[key], kind):
            raise ResultFileError(f'its {key!r} is a {type(meta[key]).__name__}')


def check_texts(meta: Mapping[str, Any], *keys: str, different: bool = True) -> None:
    """Raises unless each of these entries is a list of names.

    Args:
        meta: The metadata.
        *keys: Of the entries.
        different: Whether no name may stand there twice.

    Raises:
        ResultFileError: If not.
    """
    for key in keys:
        names = meta.get(key)
        texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not texts or (different and len(set(names)) != len(names)):
            raise ResultFileError(f'its {key!r} is {names!r:.60}: expected a list of names')


def check_counts(values: Any, name: str, low: int) -> None:
    """Raises unless all are whole numbers from ``low`` on.

    Raises:
        ResultFileError: If not.
    """
    if not all(type(value) is int and value >= low for value in values):
        raise ResultFileError(f'its {name!r} are {values!r:.60}: expected integers from {low} on')


def class_count(class_names: Sequence[str], labels: Any) -> int:
    """Returns how many classes labels may index: a head may have more than there are names for.

    Args:
        class_names: Those that are known.
        labels: (K,) tensor.
    """
    return max(len(class_names), int(labels.max()) + 1 if len(labels) else 0)


class ArrayCheck:
    """Checks arrays one by one and remembers the sizes of their dimensions.

    Args:
        arrays: By name.
        sizes: Sizes that are known beforehand, by the dimension's name.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], **sizes: int) -> None:
        self.arrays, self.sizes = arrays, dict(sizes)
        self._first = dict.fromkeys(sizes, 'the metadata')

    def __call__(
        self,
        name: str,
        shape: Sequence[str | int],
        kinds: str = 'f',
        low: float | None = None,
        high: float | None = None,
        gaps: bool = False,
    ) -> np.ndarray:
        """Checks one array.

        Args:
            name: Its name.
            shape: Its dimensions: a size, or a name that stands for the same size everywhere.
            kinds: NumPy's letters of the types that it may have.
            low: Smallest value that is allowed; None: any.
            high: Largest value that is allowed; None: any.
            gaps: Whether NaN is allowed.

        Returns:
            The array.

        Raises:
            ResultFileError: If it is missing, or something does not fit.
        """
        if name not in self.arrays:
            raise ResultFileError(f'{name!r} is missing')
        array = self.arrays[name]
        if array.dtype.kind not in kinds:
            expected = ' or '.join(_KINDS[kind] for kind in kinds)
            raise ResultFileError(f'{name!r} has the type {array.dtype}: expected {expected}')
        self._check_shape(name, array, shape)
        if array.dtype.kind == 'f' and not gaps and not np.isfinite(array).all():
            raise ResultFileError(f'{name!r} holds values that are not finite')
        if gaps and np.isinf(array).any():
            raise ResultFileError(f'{name!r} holds infinite values')
        if array.size and low is not None and array.min() < low:
            raise ResultFileError(f'{name!r} goes down to {array.min()}: expected {low} at least')
        if array.size and high is not None and array.max() > high:
            raise ResultFileError(f'{name!r} goes up to {array.max()}: expected {high} at most')
        return array

    def _check_shape(self, name: str, array: np.ndarray, shape: Sequence[str | int]) -> None:
        fits = array.ndim == len(shape)
        for size, wanted in zip(array.shape, shape, strict=False):
            if isinstance(wanted, str):
                self._first.setdefault(wanted, repr(name))
                wanted = self.sizes.setdefault(wanted, size)
            fits = fits and size == wanted
        if not fits:
            expected = ', '.join(str(self.sizes.get(part, part)) for part in shape)
            known = sorted({self._first[part] for part in shape if part in self._first})
            raise ResultFileError(
                f'{name!r} has the shape {array.shape}: expected ({expected}) to fit '
                f'{", ".join(known) or "its kind"}'
            )

    def boxes(self, count: str, classes: int | None, prefix: str = '') -> None:
        """Checks boxes, scores in [0, 1] and labels below the number of classes.

        Args:
            count: Name of the dimension of detections.
            classes: How many classes there are; None: any label will do.
            prefix: Of the arrays' names.

        Raises:
            ResultFileError: If something does not fit.
        """
        self(f'{prefix}boxes', (count, 7))
        self(f'{prefix}scores', (count,), low=-_SCORE_SLACK, high=1 + _SCORE_SLACK)
        most = None if classes is None else classes - 1
        self(f'{prefix}labels', (count,), 'iu', low=0, high=most)

    def only(self, names: Collection[str]) -> None:
        """Raises if there are arrays besides these.

        Raises:
            ResultFileError: If so.
        """
        more = sorted({*self.arrays} - {'metadata', *names})
        if more:
            raise ResultFileError(f'{more} are not expected')
