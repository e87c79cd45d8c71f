"""The compiled part of setk, which it can do without: one build of the GRU kernel for each width of vector.

setk/models/gru.py loads the one that suits the processor it finds itself on, so a build may be shared by the
nodes of a cluster. Without a C compiler they are left out (optional), and the GRU runs as torch operations.
"""

import platform

from setuptools import Extension, setup

FLAGS = ["-O2", "-fno-tree-vectorize", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
TARGETS = {"_gru_base": []}
if platform.machine() in ("x86_64", "AMD64"):
    TARGETS |= {"_gru_avx2": ["-mavx2", "-mfma"], "_gru_avx512": ["-mavx512f", "-mfma"]}

setup(
    ext_modules=[
        Extension(
            f"setk.models.{name}",
            ["setk/models/gru.c"],
            define_macros=[("MODULE", name)],
            extra_compile_args=FLAGS + target,
            optional=True,
        )
        for name, target in TARGETS.items()
    ]
)
