"""Errors, files, configuration, provenance and processes: no audio, no torch."""
