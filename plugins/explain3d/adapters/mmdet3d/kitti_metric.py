"""KITTI average precision on a machine without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from mmdet3d.evaluation.functional.kitti_utils import eval as kitti_eval
from mmdet3d.evaluation.metrics import KittiMetric
from mmengine.logging import MMLogger, print_log

from explain3d.core.checks import require_dict, require_known
from explain3d.core.errors import InputError
from explain3d.registry import METRICS

from .compiled import keep_compiled
from .kitti_counts import CountProtocol, count_kitti
from .kitti_iou import cpu_rotate_iou

_DIFFICULTIES = ('easy', 'moderate', 'hard')
_AP_CLASSES = ('car', 'pedestrian', 'cyclist')

# KITTI samples precision at one score per found object, at most 41.
_SAMPLES = 41


@METRICS.register_module()
class KittiMetricCPU(KittiMetric):
    """MMDetection3D's ``KittiMetric`` with its rotated overlap computed on the CPU.

    Protocol, data and the names of the results are the stock metric's: AP R11 and R40 in the
    image, the bird's-eye view and 3D for easy, moderate and hard objects; orientation (AOS) is
    printed. Three things differ:

    - the rotated overlap needs no CUDA and is computed in float64;
    - two annotation files that stop the stock metric are read: one whose last frame has no
      DontCare region (the converter then forgets that class), and one that begins with a frame
      without objects;
    - where there are fewer than 41 objects of a class, the log names the AP that perfect
      detections would get. KITTI samples precision once per found object, so that is below 100.

    Args:
        *args: As for ``KittiMetric``.
        counts: Also reports recall, precision and their counts at one score threshold:
            the arguments of ``kitti_counts.CountProtocol``, as ``dict(score_thr=0.3, iou='bev',
            thr=0.5)``, or a list of such. ``kitti_counts.count_kitti`` says what is counted.
        **kwargs: As for ``KittiMetric``.
    """

    def __init__(
        self, *args: Any, counts: dict | Sequence[dict] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        keep_compiled(kitti_eval)
        counts = [counts] if isinstance(counts, dict) else counts or ()
        for protocol in counts:
            require_dict('counts', protocol, "dict(score_thr=0.3, iou='bev', thr=0.5)")
            require_known('counts', protocol, [f.name for f in fields(CountProtocol)])
        self.counts = [CountProtocol(**protocol) for protocol in counts]

    def convert_annos_to_kitti_annos(self, data_infos: dict) -> list[dict]:
        """As ``KittiMetric``; knows DontCare where the converter left it out of the names."""
        data_infos['metainfo']['categories'].setdefault('DontCare', -1)
        return super().convert_annos_to_kitti_annos(data_infos)

    def format_results(self, results: list[dict], *args: Any, **kwargs: Any) -> Any:
        """As ``KittiMetric``.

        Raises:
            InputError: If there is not one result for each frame of the annotation file.
        """
        if len(results) != len(self.data_infos):
            raise InputError(
                f'Expected a result for each of the {len(self.data_infos)} frames of '
                f'{self.ann_file}, received {len(results)}: KITTI AP is that of a whole split. For '
                'a part of the frames leave the evaluation out (test_evaluator=[]).'
            )
        return super().format_results(results, *args, **kwargs)

    def kitti_evaluate(
        self,
        results_dict: dict,
        gt_annos: list[dict],
        metric: str | None = None,
        classes: list[str] | None = None,
        logger: MMLogger | None = None,
    ) -> dict[str, float]:
        """Evaluates by the KITTI protocol, without a GPU.

        Args:
            results_dict: Detections of each frame under 'pred_instances_3d' and, for detectors
                with image boxes, 'pred_instances'.
            gt_annos: Annotations of each frame.
            metric: 'bbox' or 'img_bbox'.
            classes: Names of the classes.
            logger: Where the tables are printed.

        Returns:
            The stock results and those of ``counts``.

        Raises:
            InputError: If no frame has an annotated object.
        """
        # The order of the frames changes no figure, but the stock code looks at the first object
        # of the first frame.
        order = sorted(range(len(gt_annos)), key=lambda i: len(gt_annos[i]['name']) == 0)
        gt_annos = [gt_annos[i] for i in order]
        results_dict = {name: [annos[i] for i in order] for name, annos in results_dict.items()}
        if not gt_annos or len(gt_annos[0]['name']) == 0:
            raise InputError(
                f'Expected annotated objects, received none in {len(gt_annos)} frames of '
                f'{self.ann_file}: choose an annotated split, or format_only=True.'
            )
        with cpu_rotate_iou():
            results = super().kitti_evaluate(results_dict, gt_annos, metric, classes, logger)
        for line in _bounds(gt_annos, classes):
            print_log(line, logger=logger)
        detections = results_dict.get('pred_instances_3d')
        if detections is not None and metric != 'img_bbox':
            for protocol in self.counts:
                results.update(_counted(gt_annos, detections, classes, protocol, logger))
        return results


def ap_bounds(objects: int) -> tuple[float, float]:
    """Returns the AP R11 and R40 that flawless detections of so many objects get."""
    samples = min(objects, _SAMPLES)
    # R11 averages over samples 0, 4, ..., 40; R40 over samples 1, 2, ..., 40.
    return -(-samples // 4) / 11 * 100, max(samples - 1, 0) / 40 * 100


def _bounds(gt_annos: list[dict], classes: Sequence[str]) -> list[str]:
    """A line for each class and difficulty whose AP cannot reach 100."""
    nothing = {'name': []}
    lines = []
    for name in classes:
        if name.lower() not in _AP_CLASSES:
            continue
        for level, difficulty in enumerate(_DIFFICULTIES):
            index = _AP_CLASSES.index(name.lower())
            objects = sum(
                kitti_eval.clean_data(anno, nothing, index, level)[0] for anno in gt_annos
            )
            if objects < _SAMPLES:
                r11, r40 = ap_bounds(objects)
                lines.append(
                    f'{name} {difficulty}: {objects} objects; by its sampling KITTI AP is at '
                    f'most {r11:.2f} (R11), {r40:.2f} (R40)'
                )
    return lines


def _counted(
    gt_annos: list[dict],
    dt_annos: list[dict],
    classes: Sequence[str],
    protocol: CountProtocol,
    logger: MMLogger | None,
) -> dict[str, float]:
    """Counts by ``protocol``, prints the table, returns its figures by name."""
    results = {}
    lines = ['Recall and precision of all annotated objects, matched greedily by score:']
    for name, counts in count_kitti(gt_annos, dt_annos, classes, protocol).items():
        label = f'{name}_{protocol.label(name)}'
        lines.append(
            f'{label}: recall {counts.recall:.4f}, precision {counts.precision:.4f}, '
            f'TP {counts.tp}, FN {counts.fn}, FP {counts.fp}'
        )
        key = f'pred_instances_3d/KITTI/{label}'
        results |= {f'{key}_recall': counts.recall, f'{key}_precision': counts.precision}
        results |= {f'{key}_{kind}': getattr(counts, kind.lower()) for kind in ('TP', 'FN', 'FP')}
    print_log('\n'.join(lines), logger=logger)
    return results
