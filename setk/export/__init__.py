"""A checkpoint in a form that runs elsewhere."""
