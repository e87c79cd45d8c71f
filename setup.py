"""The compiled part of setk, which it can do without: one build of each kernel for each width of vector.

setk/nn/gru.py, spiking.py and setk/native/kernels.py load the one that suits the processor they find themselves on, so a
build may be shared by the nodes of a cluster. Without a C compiler they are left out (optional): the layers run as torch
operations, and exported models in ONNX Runtime.
"""

import platform

from setuptools import Extension, setup

KERNELS = ["gru", "spiking"]
FLAGS = ["-O2", "-fno-tree-vectorize", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
TARGETS = {"base": []}
if platform.machine() in ("x86_64", "AMD64"):
    TARGETS |= {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f", "-mfma"]}

setup(
    ext_modules=[
        Extension(
            f"setk.nn._{kernel}_{name}",
            [f"setk/nn/{kernel}.c"],
            define_macros=[("MODULE", f"_{kernel}_{name}")],
            extra_compile_args=FLAGS + target,
            optional=True,
        )
        for kernel in KERNELS
        for name, target in TARGETS.items()
    ] + [
        Extension(
            f"setk.native._kernels_{name}",
            ["setk/native/native.c"],
            depends=[f"setk/native/{header}.h" for header in ("vector", "kernels", "products", "layers", "transform", "program")],
            define_macros=[("MODULE", f"_kernels_{name}")],
            extra_compile_args=["-std=gnu99", "-O3"] + [flag.replace("avx512f", "avx512dq") for flag in target],
            optional=True,
        )
        for name, target in TARGETS.items()
    ]
)
