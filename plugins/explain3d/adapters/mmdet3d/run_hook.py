"""What the hooks that attach to the model of a test run have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook

from ..common.shadow import ModelAttachment


class TestRunHook(Hook):
    """Holds the attachment of one test run, and lets go of it in time.

    A subclass attaches in ``before_test_epoch``, after ``_let_go``, and reports in
    ``after_test_epoch``.
    """

    __test__ = False  # Not a test for pytest, whatever the name begins with.

    #: After all others: hooks that exchange the weights (EMA) have done so by then.
    priority = 'VERY_LOW'

    attachment: ModelAttachment | None = None

    def after_test_iter(self, runner: Any, batch_idx: int, *_: Any, **__: Any) -> None:
        """Lets go after the last batch: nothing is told if the evaluation then fails."""
        if batch_idx + 1 == len(runner.test_dataloader):
            self.attachment.detach()

    def _let_go(self) -> ModelAttachment | None:
        """Detaches, and returns the attachment of the run, if there is one."""
        attachment, self.attachment = self.attachment, None
        if attachment is not None:
            attachment.detach()
        return attachment


def sum_counts(counts: Any, names: Sequence[str], device: torch.device) -> None:
    """Replaces these counts by their sums over all processes."""
    total = torch.tensor([getattr(counts, name) for name in names], device=device)
    dist.all_reduce(total)
    for name, value in zip(names, total.tolist(), strict=True):
        setattr(counts, name, value)
