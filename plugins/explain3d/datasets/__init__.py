"""Data sets that no host ships: the simulated mini world and its writers."""
