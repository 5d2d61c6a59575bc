"""Pictures that cannot be read name their file."""

import matplotlib.image
import numpy as np
import pytest

from explain3d.core.errors import InputError
from explain3d.visualization.sheet import read_image


def test_what_is_written_is_read(tmp_path):
    picture = np.linspace(0, 1, 60).reshape(4, 5, 3)
    matplotlib.image.imsave(tmp_path / 'a.png', picture)
    assert np.abs(read_image(tmp_path / 'a.png')[..., :3] - picture).max() < 1 / 255


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'none.png', 'words.png', 'empty.jpg'])
def test_what_cannot_be_read_is_named(name, tmp_path):
    path = tmp_path / name
    if name.startswith('a.'):
        matplotlib.image.imsave(path, np.random.default_rng(0).random((40, 50, 3)))
        path.write_bytes(path.read_bytes()[:300])
    elif name != 'none.png':
        path.write_bytes(b'' if name == 'empty.jpg' else b'no picture')
    with pytest.raises(InputError, match=f'{name} cannot be read .*: expected a complete'):
        read_image(path)
