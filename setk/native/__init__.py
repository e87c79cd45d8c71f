"""Programs: an exported graph as a table of rows that fixed C kernels run, samples in and samples out.

`translate` makes one of an .onnx file; setk/engines/native.py runs it, setk/export/c prints it as C.
"""
