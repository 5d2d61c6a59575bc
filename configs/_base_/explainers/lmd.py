"""LMD as a hook, for SimpleBEV: a file and a sheet a frame, layers inside, Radar-GradCAM."""

custom_hooks = [
    dict(
        type='explain3d.LMDHook',
        # Where components start and end: as the model proposes, segmentation only.
        seeds='sensors',
        outputs=['heads.segmentation'],
        # The paper's best: identity in activations and BatchNorm, ratio in InstanceNorm.
        rules=dict(
            activation='identity',
            bias_split='identity',
            batch_norm='identity',
            instance_norm='ratio',
        ),
        capture=[
            *('fuser.conv', 'fuser', 'decoder.layer1', 'decoder.layer2', 'decoder.layer3'),
            *('decoder.up3_skip', 'decoder.up2_skip', 'decoder.up1_skip'),
        ],
        gradcam=dict(layers=['fuser', 'decoder.layer2', 'decoder.up1_skip']),
        results=dict(pictures=['sheet', 'shares', 'layers', 'gradcam']),
    )
]
