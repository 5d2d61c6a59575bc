"""The test frames of a configuration of OpenPCDet, and the checkout that reads them."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..common.spconv_compat import ensure_cpu_backward
from .config import data_path, read_config, require_frames
from .cpu import cpu_mode
from .entries import set_entry
from .host import find_script, import_host, require_device

_LOG = logging.getLogger('explain3d')


@contextmanager
def opened_host(device: str) -> Iterator[tuple[type, Path]]:
    """Imports OpenPCDet, with stand-ins for its operators on a CPU, while the context lasts.

    Args:
        device: 'cpu', 'cuda' or 'cuda:N'.

    Returns:
        Its ``Detector3DTemplate`` and its folder ``tools``.

    Raises:
        HostError: As ``host.find_script``, ``host.import_host`` and ``host.require_device``.
    """
    require_device(device)
    script = find_script()
    ensure_cpu_backward()
    path = sys.path[:]
    with ExitStack() as stack:
        stack.callback(sys.path.__setitem__, slice(None), path)
        if device == 'cpu':
            stack.enter_context(cpu_mode())
        yield import_host(script, device == 'cpu'), script.parent


def configuration(
    path: str | os.PathLike, options: Mapping[str, Any], tools: Path | None
) -> dict[str, Any]:
    """Returns a configuration with its bases, and with entries replaced by their dotted names.

    Args:
        path: The YAML file.
        options: Values by name, see ``entries.set_entry``.
        tools: OpenPCDet's ``tools`` folder.

    Raises:
        UnknownNameError: If an entry is unknown.
        InputError: If the file or a base is not there, or a part of a name is no section.
    """
    config = read_config(path, tools)
    for name, value in options.items():
        set_entry(config, name, value)
    return config


def build_test_data(config: dict[str, Any], tools: Path) -> tuple[Any, Any]:
    """Builds the test data set of a configuration.

    Args:
        config: The configuration; its ``DATA_CONFIG.DATA_PATH`` is replaced by the folder found.
        tools: OpenPCDet's ``tools`` folder.

    Returns:
        The configuration in OpenPCDet's form, and the data set.

    Raises:
        InputError: If the data set is not there, or has no frames.
    """
    data = config['DATA_CONFIG']
    data['DATA_PATH'] = data_path(data['DATA_PATH'], tools)
    host = importlib.import_module('pcdet.config').EasyDict(config)
    dataset, _, _ = importlib.import_module('pcdet.datasets').build_dataloader(
        dataset_cfg=host.DATA_CONFIG, class_names=host.CLASS_NAMES, batch_size=1, dist=False,
        workers=0, logger=_LOG, training=False,
    )  # fmt: skip
    require_frames(dataset, host.DATA_CONFIG)
    return host, dataset


def clouds(
    path: str | os.PathLike, options: Mapping[str, Any], frames: int | None
) -> list[np.ndarray]:
    """Returns the (N, >= 3) points of each test frame as the detector gets them.

    Args:
        path: The YAML file.
        options: Values by name, see ``entries.set_entry``.
        frames: The first so many; None: all.

    Raises:
        HostError: If OpenPCDet is not there.
        UnknownNameError: If an entry is unknown.
        InputError: If the configuration or the data are not there.
    """
    with opened_host('cpu') as (_, tools):
        _, dataset = build_test_data(configuration(path, options, tools), tools)
        count = min(len(dataset), frames or len(dataset))
        return [np.asarray(dataset[index]['points']) for index in range(count)]
