from .second_net import SECONDNet


class VoxelRCNN(SECONDNet):
    """The same chain of modules; its configuration has a ROI_HEAD."""
