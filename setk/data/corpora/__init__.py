"""A corpus on disk -> data directories."""
