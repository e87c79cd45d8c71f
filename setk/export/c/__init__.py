"""A checkpoint as C: the exported graph becomes a program, a table of rows that fixed kernels run (see kernels.h)."""
