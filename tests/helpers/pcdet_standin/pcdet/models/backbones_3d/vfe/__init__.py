"""A voxel's feature: the mean of its points."""

from torch import nn


class MeanVFE(nn.Module):
    def __init__(self, model_cfg, num_point_features, **_):
        super().__init__()
        self.model_cfg, self.num_point_features = model_cfg, num_point_features

    def get_output_feature_dim(self):
        return self.num_point_features

    def forward(self, batch_dict, **_):
        voxels = batch_dict['voxels']
        count = batch_dict['voxel_num_points'].view(-1, 1).clamp(min=1).to(voxels.dtype)
        batch_dict['voxel_features'] = voxels.sum(dim=1) / count
        return batch_dict


__all__ = {'MeanVFE': MeanVFE}  # noqa: PLE0605
