"""OpenPCDet's interfaces for tests where OpenPCDet cannot be installed.

Written from scratch, for tests alone: the same module paths, class and attribute names, tensor
shapes, parameter names and keys of ``batch_dict`` as the real package, so that the same adapter
and the same tests run on both. It evaluates only (no losses, no augmentation), has MeanVFE, the
two 8x sparse backbones, BaseBEVBackbone, AnchorHeadSingle, CenterHead and a refinement head in
the manner of Voxel R-CNN, runs wherever torch does, and needs no compiled operators of its own.
"""

__version__ = '0.6.0+standin'
