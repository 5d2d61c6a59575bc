"""Layer-wise modality decomposition (LMD)."""
