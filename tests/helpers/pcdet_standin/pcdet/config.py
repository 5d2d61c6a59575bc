"""The configuration: a dictionary with attributes, read from YAML."""

from ast import literal_eval
from pathlib import Path

import yaml


class EasyDict(dict):
    """Keys are attributes; dictionaries inside become the same."""

    def __init__(self, values=None, **more):
        super().__init__()
        for key, value in {**(values or {}), **more}.items():
            self[key] = value

    def __setitem__(self, key, value):
        super().__setitem__(key, _attributes(value))

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    __setattr__ = __setitem__

    def update(self, other=(), **more):
        for key, value in {**dict(other), **more}.items():
            self[key] = value


def _attributes(value):
    if isinstance(value, dict) and not isinstance(value, EasyDict):
        return EasyDict(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_attributes(item) for item in value)
    return value


def log_config_to_file(cfg, pre='cfg', logger=None):
    for key, value in cfg.items():
        if isinstance(value, EasyDict):
            log_config_to_file(value, f'{pre}.{key}', logger)
        else:
            logger.info(f'{pre}.{key}: {value}')


def cfg_from_list(cfg_list, config):
    assert len(cfg_list) % 2 == 0
    for path, text in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
        *parents, last = path.split('.')
        node = config
        for name in parents:
            assert name in node, f'NotFoundKey: {name}'
            node = node[name]
        assert last in node, f'NotFoundKey: {last}'
        try:
            value = literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        assert type(value) is type(node[last]), f'type {type(value)} for {type(node[last])}'
        node[last] = value


def merge_new_config(config, new_config):
    if '_BASE_CONFIG_' in new_config:
        config.update(yaml.safe_load(Path(new_config['_BASE_CONFIG_']).read_text()))
    for key, value in new_config.items():
        if isinstance(value, dict):
            merge_new_config(config.setdefault(key, EasyDict()), value)
        else:
            config[key] = value
    return config


def cfg_from_yaml_file(cfg_file, config):
    return merge_new_config(config, yaml.safe_load(Path(cfg_file).read_text()))


cfg = EasyDict()
cfg.ROOT_DIR = Path(__file__).resolve().parents[1]
cfg.LOCAL_RANK = 0
