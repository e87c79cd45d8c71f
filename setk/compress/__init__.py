"""Smaller and elsewhere: what turns a checkpoint into another file that runs."""
