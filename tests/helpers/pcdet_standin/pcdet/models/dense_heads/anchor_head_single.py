from torch import nn

from .anchor_head_template import AnchorHeadTemplate


class AnchorHeadSingle(AnchorHeadTemplate):
    def __init__(
        self, model_cfg, input_channels, num_class, class_names, grid_size, point_cloud_range,
        predict_boxes_when_training=True, **_,
    ):  # fmt: skip
        super().__init__(
            model_cfg, num_class, class_names, grid_size, point_cloud_range,
            predict_boxes_when_training,
        )  # fmt: skip
        self.num_anchors_per_location = sum(self.num_anchors_per_location)
        anchors = self.num_anchors_per_location
        self.conv_cls = nn.Conv2d(input_channels, anchors * num_class, 1)
        self.conv_box = nn.Conv2d(input_channels, anchors * self.box_coder.code_size, 1)
        self.conv_dir_cls = None
        if model_cfg.get('USE_DIRECTION_CLASSIFIER', None) is not None:
            self.conv_dir_cls = nn.Conv2d(input_channels, anchors * model_cfg.NUM_DIR_BINS, 1)
        nn.init.constant_(self.conv_cls.bias, -4.6)

    def forward(self, data_dict):
        features = data_dict['spatial_features_2d']
        layers = {'cls_preds': self.conv_cls, 'box_preds': self.conv_box}
        if self.conv_dir_cls is not None:
            layers['dir_cls_preds'] = self.conv_dir_cls
        raw = {k: layer(features).permute(0, 2, 3, 1).contiguous() for k, layer in layers.items()}
        self.forward_ret_dict.update(raw)
        scores, boxes = self.generate_predicted_boxes(data_dict['batch_size'], **raw)
        data_dict['batch_cls_preds'], data_dict['batch_box_preds'] = scores, boxes
        data_dict['cls_preds_normalized'] = False
        return data_dict
