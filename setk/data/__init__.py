"""Corpora: lists, data directories, mixtures and shards."""
