"""What each package is for: an installation may hold only those that it needs (requirements-light.txt)."""

from __future__ import annotations

# Module -> name in the package index, what needs it. The modules of the light installation come first.
USES = {
    "numpy": ("numpy", "all audio"),
    "soundfile": ("soundfile", "audio files"),
    "soxr": ("soxr", "resampling"),
    "onnxruntime": ("onnxruntime", "ONNX models, the included ones among them, and DNSMOS"),
    "typer": ("typer", "every command"),
    "tqdm": ("tqdm", "the progress bar"),
    "yaml": ("pyyaml", "configs"),
    "h5py": ("h5py", "shards"),
    "torch": ("torch", "checkpoints (.pt), training, counting, pruning and export"),
    "onnx": ("onnx", "export to ONNX and integer inference"),
    "onnxslim": ("onnxslim", "export to ONNX"),
    "pesq": ("pesq", "PESQ and the composite metrics"),
    "pystoi": ("pystoi", "se-score --verify"),
    "resampy": ("resampy", "--resampler resampy"),
    "matplotlib": ("matplotlib", "pictures of curves"),
}


def explain(error: ModuleNotFoundError) -> str | None:
    """What is missing, what needs it and how to install it, in one line. None if a module of setk itself is missing."""
    module = (error.name or "").partition(".")[0]
    if module in ("", "setk"):
        return None
    package, use = USES.get(module, (module, ""))
    return f"the package {package} is not installed{use and f'; it is needed for {use}'}: pip install {package}"
