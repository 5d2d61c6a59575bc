"""The OpenPCDet adapter: attaches to a stock checkout of OpenPCDet and its test runner."""
