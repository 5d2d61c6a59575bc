"""The sparse convolutions that the backbones are made of."""

import spconv.pytorch as spconv


def find_all_spconv_keys(model, prefix=''):
    layers = spconv.conv.SparseConvolution
    found = (
        name for name, layer in model.named_modules(prefix=prefix) if isinstance(layer, layers)
    )
    return {f'{name}.weight' for name in found}


def replace_feature(out, new_features):
    return out.replace_feature(new_features)
