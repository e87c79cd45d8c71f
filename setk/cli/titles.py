"""Titles under which help lists options."""

INPUT, OUTPUT, METRICS, TABLES = "Input", "Output", "Metrics", "Tables of results"
PRUNING, PARALLEL, ADVANCED, GENERAL = "Pruning", "Parallel", "Advanced", "General"
