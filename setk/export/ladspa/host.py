"""A host for a LADSPA plugin of our own, to run it before it is written."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

BLOCK = 1024  # samples that a host hands over at once
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_ulong


class _Descriptor(ctypes.Structure):
    """A plugin, as LADSPA 1.1 lays it out."""

    _fields_ = [
        ("number", _NUMBER),
        ("label", ctypes.c_char_p),
        ("properties", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("maker", ctypes.c_char_p),
        ("copyright", ctypes.c_char_p),
        ("port_count", _NUMBER),
        ("ports", ctypes.POINTER(ctypes.c_int)),
        ("port_names", ctypes.POINTER(ctypes.c_char_p)),
        ("ranges", _POINTER),
        ("data", _POINTER),
        ("instantiate", ctypes.CFUNCTYPE(_POINTER, _POINTER, _NUMBER)),
        ("connect_port", ctypes.CFUNCTYPE(None, _POINTER, _NUMBER, _POINTER)),
        ("activate", ctypes.CFUNCTYPE(None, _POINTER)),
        ("run", ctypes.CFUNCTYPE(None, _POINTER, _NUMBER)),
        ("run_adding", _POINTER),
        ("set_run_adding_gain", _POINTER),
        ("deactivate", _POINTER),
        ("cleanup", ctypes.CFUNCTYPE(None, _POINTER)),
    ]


class Plugin:
    """The plugin `label` of a library. The library is a program: open only one that was made here, or that the user names."""

    def __init__(self, path: Path, label: str):
        library = ctypes.CDLL(str(path))
        library.ladspa_descriptor.restype = ctypes.POINTER(_Descriptor)
        library.ladspa_descriptor.argtypes = [_NUMBER]
        index = 0
        while (found := library.ladspa_descriptor(index)) and found.contents.label.decode() != label:
            index += 1
        if not found:
            raise ValueError(f"{path} has no plugin '{label}'")
        self._library, self._descriptor = library, found
        self.channels = found.contents.port_count // 2 - 1

    def run(self, x: np.ndarray, rate: int, limit_db: float = 60.0, block: int = BLOCK) -> np.ndarray:
        """The output for x [channels, n] at `rate` Hz, float32, aligned with x by the plugin's latency port."""
        plugin = self._descriptor.contents
        instance = plugin.instantiate(ctypes.addressof(plugin), rate)
        if not instance:
            raise ValueError(f"the plugin does not run at {rate} Hz")
        limit, latency = ctypes.c_float(limit_db), ctypes.c_float()
        for port, control in enumerate((limit, latency), 2 * self.channels):
            plugin.connect_port(instance, port, ctypes.addressof(control))
        plugin.activate(instance)
        plugin.run(instance, 0)  # states the latency
        late = round(latency.value)
        samples = np.ascontiguousarray(np.pad(x, ((0, 0), (0, late))), np.float32)
        out = np.empty_like(samples)
        for at in range(0, samples.shape[1], block):
            for port, row in enumerate((*samples, *out)):
                plugin.connect_port(instance, port, row[at:].ctypes.data)
            plugin.run(instance, min(block, samples.shape[1] - at))
        plugin.cleanup(instance)
        return out[:, late:]
