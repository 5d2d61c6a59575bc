"""Runs a detector over its test split: the same command line and calls as OpenPCDet's."""

import argparse
import datetime
import re
from pathlib import Path

import _init_path  # noqa: F401
import numpy as np
import torch
from eval_utils import eval_utils
from pcdet.config import cfg, cfg_from_list, cfg_from_yaml_file, log_config_to_file
from pcdet.datasets import build_dataloader
from pcdet.models import build_network
from pcdet.utils import common_utils


def parse_config():
    parser = argparse.ArgumentParser(description='arg parser')
    add = parser.add_argument
    for name in ('cfg_file', 'ckpt', 'pretrained_model', 'ckpt_dir'):
        add(f'--{name}', type=str, default=None)
    add('--batch_size', type=int, default=None)
    add('--workers', type=int, default=4)
    add('--extra_tag', type=str, default='default')
    add('--eval_tag', type=str, default='default')
    add('--launcher', choices=['none', 'pytorch', 'slurm'], default='none')
    add('--tcp_port', type=int, default=18888)
    add('--local_rank', type=int, default=None)
    add('--set', dest='set_cfgs', default=None, nargs=argparse.REMAINDER)
    add('--max_waiting_mins', type=int, default=30)
    add('--start_epoch', type=int, default=0)
    for name in ('eval_all', 'save_to_file', 'infer_time'):
        add(f'--{name}', action='store_true', default=False)
    args = parser.parse_args()
    cfg_from_yaml_file(args.cfg_file, cfg)
    cfg.TAG = Path(args.cfg_file).stem
    cfg.EXP_GROUP_PATH = '/'.join(args.cfg_file.split('/')[1:-1])
    np.random.seed(1024)  # noqa: NPY002
    if args.set_cfgs is not None:
        cfg_from_list(args.set_cfgs, cfg)
    return args, cfg


def eval_single_ckpt(model, test_loader, args, eval_output_dir, logger, epoch_id, dist_test=False):
    model.load_params_from_file(
        filename=args.ckpt, logger=logger, to_cpu=dist_test, pre_trained_path=args.pretrained_model
    )
    if torch.cuda.is_available():
        model.cuda()
    eval_utils.eval_one_epoch(
        cfg, args, model, test_loader, epoch_id, logger, dist_test=dist_test,
        result_dir=eval_output_dir,
    )  # fmt: skip


def main():
    args, cfg = parse_config()
    dist_test, gpus = args.launcher != 'none', 1
    if dist_test:
        gpus, cfg.LOCAL_RANK = getattr(common_utils, f'init_dist_{args.launcher}')(
            args.tcp_port, args.local_rank or 0, backend='nccl'
        )
    args.batch_size = (args.batch_size or cfg.OPTIMIZATION.BATCH_SIZE_PER_GPU * gpus) // gpus
    numbers = re.findall(r'\d+', args.ckpt or '')
    epoch_id = numbers[-1] if numbers else 'no_number'
    folder = cfg.ROOT_DIR / 'output' / cfg.EXP_GROUP_PATH / cfg.TAG / args.extra_tag / 'eval'
    folder = folder / f'epoch_{epoch_id}' / cfg.DATA_CONFIG.DATA_SPLIT['test'] / args.eval_tag
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
    logger = common_utils.create_logger(folder / f'log_eval_{now}.txt', rank=cfg.LOCAL_RANK)
    log_config_to_file(cfg, logger=logger)
    test_set, test_loader, _ = build_dataloader(
        dataset_cfg=cfg.DATA_CONFIG, class_names=cfg.CLASS_NAMES, batch_size=args.batch_size,
        dist=dist_test, workers=args.workers, logger=logger, training=False,
    )  # fmt: skip
    model = build_network(model_cfg=cfg.MODEL, num_class=len(cfg.CLASS_NAMES), dataset=test_set)
    with torch.no_grad():
        eval_single_ckpt(model, test_loader, args, folder, logger, epoch_id, dist_test=dist_test)


if __name__ == '__main__':
    main()
