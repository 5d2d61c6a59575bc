"""Which tests run on the pretended device."""

#: Those of ``--pretend-device=all``: not pictures, files and command lines, where nothing computes.
ALL = (
    'tests/pretended', 'tests/core', 'tests/contract', 'tests/methods', 'tests/metrics',
    'tests/lmd', 'tests/models', 'tests/adapters',
)  # fmt: skip
#: Those of ``--pretend-device=some``: some of each kind, within two minutes.
SOME = (
    'tests/pretended',
    'tests/core/test_capture.py',
    'tests/core/test_gradients.py',
    'tests/methods/test_gradient_baselines.py',
    'tests/lmd/test_splitting.py',
    'tests/lmd/test_detections.py',
    'tests/adapters/common/test_transposed.py',
    'tests/adapters/mmdet3d/test_row_order.py',
    'tests/adapters/mmdet3d/test_benchmark.py::test_all_metrics_on_one_frame',
    'tests/adapters/mmdet3d/test_black_box.py::test_candidates_above_a_score',
    'tests/adapters/mmdet3d/test_black_box.py::test_a_region_that_is_emptied_wholly',
    'tests/adapters/pcdet/test_pcdet_tracer.py::test_attributes_are_what_the_host_reported[second-stride4]',
    'tests/adapters/pcdet/test_pcdet_tracer.py::test_attributes_are_what_the_host_reported[centerpoint-neck]',
    'tests/adapters/pcdet/test_pcdet_black_box.py::test_what_the_host_reports_is_among_the_candidates[centerpoint]',
)
#: Tests that cannot run there: how their names begin, and why.
SKIPPED = {
    'tests/core/test_gradients.py::test_no_more_backward_passes_than_needed': (
        'it counts calls of torch.autograd.grad, and the plugin doubles them'
    ),
    'tests/core/test_transfer.py::test_a_tensor_of_the_cpu': 'it is about tensors of a CPU',
    'tests/core/test_nmf_coarse.py::test_each_frame_of_a_batch': (
        'its fixture is made before the device is there'
    ),
    'tests/adapters/pcdet/test_pcdet_tracer.py::test_ground_truth_leaves_out': (
        'it compares with a tensor of its own on a CPU'
    ),
}
