"""Sparse encoders that halve the grid three times, and its height once more."""

from torch import nn

from ...utils.spconv_utils import replace_feature, spconv


def _norm(channels):
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)


def _unit(inputs, outputs, key, kernel=3, **down):
    kind = spconv.SparseConv3d if down else spconv.SubMConv3d
    layer = kind(inputs, outputs, kernel, bias=False, indice_key=key, **down)
    return spconv.SparseSequential(layer, _norm(outputs), nn.ReLU())


class SparseBasicBlock(spconv.SparseModule):
    def __init__(self, channels, bias, key):
        super().__init__()
        layer = dict(kernel_size=3, padding=1, bias=bias, indice_key=key)
        self.conv1, self.bn1 = spconv.SubMConv3d(channels, channels, **layer), _norm(channels)
        self.conv2, self.bn2 = spconv.SubMConv3d(channels, channels, **layer), _norm(channels)
        self.relu = nn.ReLU()

    def forward(self, x):
        out = self.conv1(x)
        out = self.conv2(replace_feature(out, self.relu(self.bn1(out.features))))
        return replace_feature(out, self.relu(self.bn2(out.features) + x.features))


class _Encoder8x(nn.Module):
    """The four stages; what a stage has after its first layer is a subclass's matter."""

    channels = ()

    def __init__(self, model_cfg, input_channels, grid_size, **_):
        super().__init__()
        self.model_cfg = model_cfg
        self.sparse_shape = grid_size[::-1] + [1, 0, 0]
        first, *_, last = self.channels
        self.conv_input = _unit(input_channels, first, 'subm1')
        self.conv1 = spconv.SparseSequential(*self._stage(1, first))
        for i in (2, 3, 4):
            padding = (0, 1, 1) if i == 4 else 1
            down = _unit(*self.channels[i - 2 : i], f'spconv{i}', stride=2, padding=padding)
            layers = self._stage(i, self.channels[i - 1])
            setattr(self, f'conv{i}', spconv.SparseSequential(down, *layers))
        self.conv_out = _unit(
            last, 128, 'spconv_down2', (3, 1, 1),
            stride=(2, 1, 1), padding=model_cfg.get('last_pad', 0),
        )  # fmt: skip
        self.num_point_features = 128
        self.backbone_channels = {f'x_conv{i + 1}': c for i, c in enumerate(self.channels)}

    def _stage(self, stage, channels):
        raise NotImplementedError

    def forward(self, batch_dict):
        x = self.conv_input(
            spconv.SparseConvTensor(
                batch_dict['voxel_features'], batch_dict['voxel_coords'].int(),
                self.sparse_shape, batch_dict['batch_size'],
            )
        )  # fmt: skip
        features = {}
        for i in (1, 2, 3, 4):
            x = features[f'x_conv{i}'] = getattr(self, f'conv{i}')(x)
        batch_dict['encoded_spconv_tensor'] = self.conv_out(x)
        batch_dict['encoded_spconv_tensor_stride'] = 8
        batch_dict['multi_scale_3d_features'] = features
        batch_dict['multi_scale_3d_strides'] = {f'x_conv{i + 1}': 2**i for i in range(4)}
        return batch_dict


class VoxelBackBone8x(_Encoder8x):
    channels = (16, 32, 64, 64)

    def _stage(self, stage, channels):
        return [_unit(channels, channels, f'subm{stage}') for _ in range(1 if stage == 1 else 2)]


class VoxelResBackBone8x(_Encoder8x):
    channels = (16, 32, 64, 128)

    def _stage(self, stage, channels):
        bias = self.model_cfg.get('USE_BIAS', None)
        bias = True if bias is None else bias
        return [SparseBasicBlock(channels, bias, f'res{stage}') for _ in range(2)]
