"""Layers that belong to no paper, and their compiled kernels."""
