"""Models that no host toolbox ships."""
