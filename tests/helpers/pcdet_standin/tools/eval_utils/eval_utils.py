"""One pass over a data set: detections, recall, evaluation, result.pkl."""

import pickle

import torch
from pcdet.models import load_data_to_gpu
from pcdet.utils import common_utils


def eval_one_epoch(
    cfg, args, model, dataloader, epoch_id, logger, dist_test=False, result_dir=None
):
    result_dir.mkdir(parents=True, exist_ok=True)
    output_dir = result_dir / 'final_result' / 'data'
    if args.save_to_file:
        output_dir.mkdir(parents=True, exist_ok=True)
    dataset = dataloader.dataset
    thresholds = cfg.MODEL.POST_PROCESSING.RECALL_THRESH_LIST
    counts = {'gt': 0, **{f'{s}_{t}': 0 for s in ('roi', 'rcnn') for t in thresholds}}
    logger.info(f'*************** EPOCH {epoch_id} EVALUATION *****************')
    if dist_test:
        device = cfg.LOCAL_RANK % torch.cuda.device_count()
        model = torch.nn.parallel.DistributedDataParallel(
            model, device_ids=[device], broadcast_buffers=False
        )
    model.eval()
    annos = []
    for batch_dict in dataloader:
        load_data_to_gpu(batch_dict)
        with torch.no_grad():
            found, recall = model(batch_dict)
        for key in counts:
            counts[key] += recall.get(key, 0)
        annos += dataset.generate_prediction_dicts(
            batch_dict, found, dataset.class_names,
            output_path=output_dir if args.save_to_file else None,
        )  # fmt: skip
    parts = [counts]
    if dist_test:
        _, world_size = common_utils.get_dist_info()
        annos = common_utils.merge_results_dist(annos, len(dataset), result_dir / 'tmpdir')
        parts = common_utils.merge_results_dist([counts], world_size, result_dir / 'tmpdir')
    if cfg.LOCAL_RANK != 0:
        return {}
    total = {key: sum(part[key] for part in parts) for key in counts}
    result = {
        f'recall/{s}_{t}': total[f'{s}_{t}'] / max(total['gt'], 1)
        for t in thresholds for s in ('roi', 'rcnn')
    }  # fmt: skip
    for key, value in result.items():
        logger.info(f'{key}: {value:.6f}')
    (result_dir / 'result.pkl').write_bytes(pickle.dumps(annos))
    text, table = dataset.evaluation(
        annos, dataset.class_names, eval_metric=cfg.MODEL.POST_PROCESSING.EVAL_METRIC,
        output_path=output_dir,
    )  # fmt: skip
    logger.info(text)
    logger.info(f'Result is saved to {result_dir}')
    return {**result, **table}
