"""A translated model as a C file: its program, its constants and the kernels that it uses."""
