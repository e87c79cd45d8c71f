"""The score table: pairing, means and intervals, comparison, report."""
