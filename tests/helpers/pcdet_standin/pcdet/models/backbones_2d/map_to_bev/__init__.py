"""The sparse grid seen from above: heights become channels."""

from torch import nn


class HeightCompression(nn.Module):
    def __init__(self, model_cfg, **_):
        super().__init__()
        self.model_cfg, self.num_bev_features = model_cfg, model_cfg.NUM_BEV_FEATURES

    def forward(self, batch_dict):
        dense = batch_dict['encoded_spconv_tensor'].dense()
        batch_dict['spatial_features'] = dense.flatten(1, 2)
        batch_dict['spatial_features_stride'] = batch_dict['encoded_spconv_tensor_stride']
        return batch_dict


__all__ = {'HeightCompression': HeightCompression}  # noqa: PLE0605
