"""What the hooks that attach to the model of a test run have in common."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook

from ..common.class_names import check_class_order
from ..common.data_facts import DataFacts
from ..common.shadow import ModelAttachment
from .data_facts import facts_of
from .reading import readable_frames


class TestRunHook(Hook):
    """Holds the attachment of one test run, and lets go of it in time.

    A subclass attaches in ``before_test_epoch``, after ``_let_go``, and reports in
    ``after_test_epoch``.
    """

    __test__ = False  # Not a test for pytest, whatever the name begins with.

    #: After all others: hooks that exchange the weights (EMA) have done so by then.
    priority = 'VERY_LOW'

    attachment: ModelAttachment | None = None

    @cached_property
    def _reading(self) -> ExitStack:
        """Puts the data set's loading back when it is closed."""
        return ExitStack()

    def after_test_iter(self, runner: Any, batch_idx: int, *_: Any, **__: Any) -> None:
        """Lets go after the last batch: nothing is told if the evaluation then fails."""
        if batch_idx + 1 == len(runner.test_dataloader):
            self._reading.close()
            self.attachment.detach()

    def _attach(self, runner: Any, attachment: ModelAttachment) -> None:
        """Attaches to the model, and to the data set, whose unreadable files are named."""
        self.attachment = attachment
        attachment.attach()
        dataset = getattr(runner.test_dataloader, 'dataset', None)
        self._reading.enter_context(readable_frames(dataset, attachment.on_error))

    def _let_go(self) -> ModelAttachment | None:
        """Detaches, and returns the attachment of the run, if there is one."""
        self._reading.close()
        attachment, self.attachment = self.attachment, None
        if attachment is not None:
            attachment.detach()
        return attachment


def facts_of_run(runner: Any, key: str | None = None, trained: Sequence[str] = ()) -> DataFacts:
    """Returns what the test data set of a run says of its frames.

    Args:
        runner: A runner.
        key: Entry of the meta information that names a frame.
        trained: Names of the classes that the checkpoint was trained for, where they are known.

    Raises:
        InputError: If the classes of the checkpoint are others, or have another order.
    """
    facts = facts_of(getattr(runner.test_dataloader, 'dataset', None), key)
    check_class_order(facts.classes, trained, 'the checkpoint', runner.logger)
    return facts


def sum_counts(counts: Any, names: Sequence[str], device: torch.device) -> None:
    """Replaces these counts by their sums over all processes."""
    total = torch.tensor([getattr(counts, name) for name in names], device=device)
    dist.all_reduce(total)
    for name, value in zip(names, total.tolist(), strict=True):
        setattr(counts, name, value)
