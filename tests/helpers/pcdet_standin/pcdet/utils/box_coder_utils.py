"""Boxes as offsets from anchors."""

import torch


class ResidualCoder:
    """Centre in units of the anchor's diagonal and height, log size, angle difference."""

    def __init__(self, code_size=7, **_):
        self.code_size = code_size

    def decode_torch(self, box_encodings, anchors):
        diagonal = anchors[..., 3:5].norm(dim=-1, keepdim=True)
        scale = torch.cat([diagonal, diagonal, anchors[..., 5:6]], -1)
        return torch.cat(
            [
                box_encodings[..., :3] * scale + anchors[..., :3],
                box_encodings[..., 3:6].exp() * anchors[..., 3:6],
                box_encodings[..., 6:] + anchors[..., 6:],
            ],
            -1,
        )
