"""The compiled part of setk, which is optional: one build of each kernel for each width of vector.

setk/nn/kernel.py and setk/native/kernels.py load the build for the processor they run on, so the nodes of a cluster can share
an installation. Without a C compiler there are no kernels: layers run as torch operations, exported models in ONNX Runtime.
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
            depends=["setk/nn/vec.h"],
            define_macros=[("MODULE", f"_{kernel}_{name}")],
            extra_compile_args=FLAGS + target,
            optional=True,
        )
        for kernel in KERNELS
        for name, target in TARGETS.items()
    ]
    + [
        Extension(
            f"setk.native._kernels_{name}",
            ["setk/native/native.c"],
            depends=[
                f"setk/native/{header}.h"
                for header in (
                    "vector",
                    "kernels",
                    "products",
                    "layers",
                    "transform",
                    "late",
                    "program",
                    "resample",
                    "live",
                )
            ],
            define_macros=[("MODULE", f"_kernels_{name}")],
            extra_compile_args=["-std=gnu99", "-O3"] + [flag.replace("avx512f", "avx512dq") for flag in target],
            optional=True,
        )
        for name, target in TARGETS.items()
    ]
)
