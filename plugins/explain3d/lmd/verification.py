"""What is wrong with a pass but would have to be waited for: asked when its results are read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..core.errors import InputError
from .components import Components
from .report import Measured


class Verification:
    """Questions to the device, each with the error to raise if the answer is yes."""

    def __init__(self) -> None:
        self._open: list[tuple[Tensor, Callable[[], Exception]]] = []
        self._found: Exception | None = None

    def ask(self, failed: Tensor, error: Callable[[], Exception]) -> None:
        """Adds a question.

        Args:
            failed: 0-d bool, whether something is wrong.
            error: Makes the error.
        """
        self._open.append((failed, error))

    def check(self) -> None:
        """Raises the first error there is; waits for the device, once, where there are questions.

        Raises:
            Exception: What ``ask`` was given.
        """
        questions, self._open = [q for q in self._open if not q[0].is_meta], []
        answers = [failed.to(questions[0][0].device) for failed, _ in questions]
        if answers:
            for failed, (_, error) in zip(torch.stack(answers).tolist(), questions, strict=True):
                if failed and self._found is None:
                    self._found = error()
        if self._found is not None:
            raise self._found


def has_wrong_values(found: Components) -> Tensor:
    """Returns a 0-d bool: whether a value is NaN, or a component is not finite.

    A value that is infinite on purpose, as of masked logits, is allowed: all of it the bias.
    """
    value, parts = found.value, found.parts
    finite = torch.isfinite(parts)
    masked = torch.isinf(value) & (parts[-1] == value) & finite[:-1].all(0)
    return (torch.isnan(value) | ~(finite.all(0) | masked)).any()


def not_finite(name: str, measured: list[Measured] | None) -> InputError:
    """Returns the error for an output whose components are not finite.

    Args:
        name: The output.
        measured: The tensors of the pass in order; None where they were not measured.
    """
    if measured is None:
        where = "Run it once with mode='check', which names the module where it begins"
    else:
        first = next((m for m in measured if not torch.isfinite(m.residual)), None)
        where = 'Its seeds are not finite'
        if first is not None:
            where = f'It begins at {first.operation} in module {first.module!r}'
    return InputError(
        f'The decomposition of {name!r} has values that are NaN or infinite: expected finite ones. '
        f'{where}; look at the input there, and for an overflow (half precision, a diverged '
        'checkpoint).'
    )
