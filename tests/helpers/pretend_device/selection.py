"""Which tests run on the pretended device."""

#: Folders and files whose tests do.
ALL = (
    'tests/core/', 'tests/contract/', 'tests/methods/', 'tests/metrics/', 'tests/lmd/',
    'tests/models/', 'tests/adapters/',
)  # fmt: skip
QUICK = ALL


def selected(item, quick):
    return item.nodeid.startswith(QUICK if quick else ALL)
