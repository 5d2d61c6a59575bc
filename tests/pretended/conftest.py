"""The pretended device for tests that make what is on it themselves."""

import pytest


def pytest_collection_modifyitems(config, items):
    if config.getoption('--pretend-device'):
        return
    reason = 'needs a device: --pretend-device=some (or all), in a run of its own'
    for item in items:
        if 'tests/pretended/' in item.nodeid:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def device():
    """Wrong devices raise, whoever mixes them."""
    from tests.helpers.pretend_device import device as pretended
    from tests.helpers.pretend_device.plugin import compiled_operators

    with pretended.PretendDevice(lenient='no such file') as mode, compiled_operators():
        yield mode


@pytest.fixture
def here():
    """What tests make is on the device, and they may mix devices; the project may not."""
    from tests.helpers.pretend_device.plugin import pretending

    with pretending() as mode:
        yield mode
