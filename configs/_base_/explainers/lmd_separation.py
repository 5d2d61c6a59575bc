"""The separation test of LMD: every pair of rules, the ablations and blanked input, one table."""

_splits = ('identity', 'uniform', 'sum', 'ratio')
_batch_norms = ('identity', 'uniform')
_instance_norms = ('identity', 'uniform', 'ratio')

# Named by the splitting of the bias in activations, then BatchNorm and InstanceNorm. Table 4 of
# the paper's appendix compares "sum, identity-ratio" and "ratio, identity-ratio".
lmd_rules = {
    f'{split}, {batch}-{instance}': dict(bias_split=split, batch_norm=batch, instance_norm=instance)
    for split in _splits
    for batch in _batch_norms
    for instance in _instance_norms
}
# Without a rule for a family, either its tangent is taken, or each component goes through it
# alone; the paper does not say what its ablation did.
lmd_rules.update(
    {
        'activation rule only (tangent norm)': dict(instance_norm='none'),
        'activation rule only (norm alone)': dict(instance_norm='separate'),
        'norm rule only (tangent activation)': dict(activation='none'),
        'norm rule only (activation alone)': dict(activation='separate'),
        'no rule (tangents)': dict(activation='none', instance_norm='none'),
        'no rule (each alone)': dict(activation='separate', instance_norm='separate'),
    }
)

# To be a configuration's own test_cfg, whose name its other bases have taken:
# test_cfg = {{_base_.lmd_separation}}
lmd_separation = dict(
    type='explain3d.SeparationTestLoop',
    rules=lmd_rules,
    modes=['relinearized', 'frozen'],
    blanked=True,
    seeds='sensors',
    outputs=['heads.segmentation'],
    memoize=['img_encoder'],
)
