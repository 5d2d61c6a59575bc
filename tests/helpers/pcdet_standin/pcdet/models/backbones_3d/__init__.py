from .spconv_backbone import VoxelBackBone8x, VoxelResBackBone8x

__all__ = {  # noqa: PLE0605
    'VoxelBackBone8x': VoxelBackBone8x,
    'VoxelResBackBone8x': VoxelResBackBone8x,
}
