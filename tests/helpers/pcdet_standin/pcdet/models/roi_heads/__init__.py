from .roi_head_template import RoIHeadTemplate
from .voxelrcnn_head import VoxelRCNNHead

__all__ = {'RoIHeadTemplate': RoIHeadTemplate, 'VoxelRCNNHead': VoxelRCNNHead}  # noqa: PLE0605
