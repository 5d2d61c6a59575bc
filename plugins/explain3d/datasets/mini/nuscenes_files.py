"""nuScenes's file formats for sensor data: LiDAR, radar, pictures, map masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contents import replace_file
from .ground import Ground
from .lidar import Sweep
from .radar import FALSE_ALARM, RadarSweep
from .scene import Pose

#: Name, PCD type and numpy type of each field of a radar file.
RADAR_FIELDS = (
    ('x', 'F', '<f4'), ('y', 'F', '<f4'), ('z', 'F', '<f4'), ('dyn_prop', 'I', 'i1'),
    ('id', 'I', '<i2'), ('rcs', 'F', '<f4'), ('vx', 'F', '<f4'), ('vy', 'F', '<f4'),
    ('vx_comp', 'F', '<f4'), ('vy_comp', 'F', '<f4'), ('is_quality_valid', 'I', 'i1'),
    ('ambig_state', 'I', 'i1'), ('x_rms', 'I', 'i1'), ('y_rms', 'I', 'i1'),
    ('invalid_state', 'I', 'i1'), ('pdh0', 'I', 'i1'), ('vx_rms', 'I', 'i1'),
    ('vy_rms', 'I', 'i1'),
)  # fmt: skip
_RADAR_TYPE = np.dtype([(name, kind) for name, _, kind in RADAR_FIELDS])
_MOVING, _STATIONARY, _ONCOMING, _CANDIDATE, _CROSSING = 0, 1, 2, 3, 6
_VALID, _UNAMBIGUOUS = 0, 3
# States that mark a doubtful cluster: no local maximum, artefact, multiple targets, angle.
_DOUBTS = (0x0B, 0x0C, 0x10, 0x11)
_SLOWEST = 0.4  # m/s over ground from which on a target counts as moving
MAP_SIZE, _MAP_CELL, _MASK_CELL = 360.0, 0.5, 0.1  # metres


def radar_records(sweep: RadarSweep, rng: np.random.Generator) -> np.ndarray:
    """(N,) records of nuScenes's 18 fields.

    ``vx``, ``vy`` and ``vx_comp``, ``vy_comp`` are the radial velocity against the sensor and
    over ground along the line of sight: a radar knows nothing of the rest. nuscenes-devkit's
    standard filters (``invalid_state`` 0, ``ambig_state`` 3, ``dyn_prop`` 0 to 6) keep all true
    detections but a few per cent, and about half of the false alarms.

    Args:
        sweep: One measurement.
        rng: Draws which detections are doubtful.
    """
    count = len(sweep.rcs)
    sight, doubt = sweep.line_of_sight, rng.random((3, count))
    false = sweep.object_index == FALSE_ALARM
    out = np.zeros(count, _RADAR_TYPE)
    out['x'], out['y'] = sweep.xy.T
    out['id'] = np.arange(count)
    out['rcs'] = np.round(sweep.rcs * 2) / 2
    out['vx'], out['vy'] = (sweep.velocity[:, None] * sight).T
    out['vx_comp'], out['vy_comp'] = (sweep.compensated[:, None] * sight).T
    out['dyn_prop'] = _dynamics(sweep, doubt[0])
    out['is_quality_valid'] = 1
    out['invalid_state'] = np.where(
        doubt[1] < np.where(false, 0.4, 0.02), rng.choice(_DOUBTS, count), _VALID
    )
    out['ambig_state'] = np.where(doubt[2] < np.where(false, 0.2, 0.02), 4, _UNAMBIGUOUS)
    out['pdh0'] = np.where(false, 1 + (4 * doubt[0]).astype(int), 1)
    # Codes of the accuracy classes; the simulated noise is the same everywhere.
    out['x_rms'] = out['y_rms'] = 19
    out['vx_rms'] = out['vy_rms'] = 3
    return out


def _dynamics(sweep: RadarSweep, luck: np.ndarray) -> np.ndarray:
    """(N,) the field ``dyn_prop``."""
    radial, across = sweep.compensated, sweep.tangential
    still = np.where(luck < 0.5, _STATIONARY, _CANDIDATE)
    moving = np.where(radial < 0, _ONCOMING, _MOVING)
    moving = np.where(across > 2 * np.abs(radial), _CROSSING, moving)
    return np.where(np.maximum(np.abs(radial), across) > _SLOWEST, moving, still)


def kept_by_default(records: np.ndarray) -> np.ndarray:
    """(N,) whether nuscenes-devkit's standard filters keep a detection."""
    return (
        (records['invalid_state'] == _VALID)
        & (records['ambig_state'] == _UNAMBIGUOUS)
        & (records['dyn_prop'] < 7)
    )


def write_radar(path: Path, records: np.ndarray) -> None:
    """Writes a binary PCD file; one record of NaN stands for no detection, as in nuScenes."""
    if not len(records):
        records = np.zeros(1, _RADAR_TYPE)
        for name, kind, _ in RADAR_FIELDS:
            records[name] = np.nan if kind == 'F' else 0
    sizes = [np.dtype(kind).itemsize for _, _, kind in RADAR_FIELDS]
    lines = [
        '# .PCD v0.7 - Point Cloud Data file format',
        'VERSION 0.7',
        'FIELDS ' + ' '.join(name for name, _, _ in RADAR_FIELDS),
        'SIZE ' + ' '.join(str(size) for size in sizes),
        'TYPE ' + ' '.join(kind for _, kind, _ in RADAR_FIELDS),
        'COUNT ' + ' '.join('1' for _ in RADAR_FIELDS),
        f'WIDTH {len(records)}',
        'HEIGHT 1',
        'VIEWPOINT 0 0 0 1 0 0 0',
        f'POINTS {len(records)}',
        'DATA binary',
    ]
    # The devkit insists on a byte after the last record.
    data = '\n'.join(lines).encode() + b'\n' + records.tobytes() + b'\n'
    replace_file(path, lambda temporary: temporary.write_bytes(data))


def lidar_points(sweep: Sweep) -> np.ndarray:
    """(N, 5) float32 x, y, z, intensity 0..255, ring (0 is the lowest beam)."""
    intensity = np.round(255 * sweep.points[:, 3] ** 2)
    return np.column_stack([sweep.points[:, :3], intensity, sweep.beam]).astype('<f4')


def write_lidar(path: Path, points: np.ndarray) -> None:
    """Writes points (N, 5)."""
    replace_file(path, lambda temporary: points.astype('<f4').tofile(temporary))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture (H, W, 3) as JPEG."""
    from PIL import Image

    image = Image.fromarray(picture)
    replace_file(path, lambda temporary: image.save(temporary, 'JPEG', quality=90))


def write_map(path: Path, ground: Ground, map_pose: Pose) -> None:
    """Writes the mask of the carriageways, 0.1 m a pixel, as nuScenes's tools want it.

    Args:
        path: PNG file.
        ground: Knows where the carriageways are.
        map_pose: The scene's world in the map frame, whose origin is the lower left corner.
    """
    from PIL import Image

    count = int(MAP_SIZE / _MAP_CELL)
    middles = (np.arange(count) + 0.5) * _MAP_CELL
    x, y = np.meshgrid(middles, middles[::-1])  # the picture's first row is the northernmost
    points = map_pose.invert(np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3))
    mask = (ground.on_carriageway(points[:, 0], points[:, 1]) * np.uint8(255)).reshape(x.shape)
    scale = round(_MAP_CELL / _MASK_CELL)
    image = Image.fromarray(np.kron(mask, np.ones((scale, scale), np.uint8)))
    replace_file(path, lambda temporary: image.save(temporary, 'PNG'))
