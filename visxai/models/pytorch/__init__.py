"""Models that are PyTorch modules, and what they are computed with."""
