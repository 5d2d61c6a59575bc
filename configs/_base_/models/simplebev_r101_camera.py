"""SimpleBEV from cameras alone."""

_base_ = './simplebev_r101.py'

model = dict(rasterizers=dict(_delete_=True))
