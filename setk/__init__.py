"""setk: speech enhancement for constrained devices, as small Unix commands and a Python API.

>>> import setk
>>> model = setk.load("fspen")                # a name, checkpoint, .onnx or .ts
>>> clean = model.enhance(noisy, rate)        # NumPy [n] or [channels, n], any rate
>>> stream = model.stream(rate, channels=1)   # stream.push(block), stream.flush()
>>> setk.score(reference, clean, rate, ["pesq_wb", "stoi"])

The commands call the same functions: the same input gives the same samples and the same scores. Nothing heavy is imported
before it is needed. What a user can fix raises setk.UserError; audio that cannot be used raises setk.AudioError, which is one.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

from setk.core.errors import AudioError as AudioError, UserError as UserError

if TYPE_CHECKING:
    import numpy as np

    from setk import export as export
    from setk.data.datadir import DataDir as DataDir
    from setk.data.shards import Shards as Shards
    from setk.engines import Enhancer
    from setk.scoring.arrays import Scores
    from setk.scoring.compare import Comparison

__version__ = "0.2.0"
