"""The mini world: a small simulator that writes data sets the host toolboxes read unchanged."""
