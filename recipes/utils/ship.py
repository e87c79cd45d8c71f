"""ship.py EXP NAME: EXP/best.pt, with the scores that stage 5 wrote, as setk/pretrained/NAME.pt and NAME.onnx."""

import json
import subprocess
import sys
from pathlib import Path

from setk import checkpoint, pretrained
from setk.core import provenance

exp, name = Path(sys.argv[1]), sys.argv[2]
content = checkpoint.read(exp / "best.pt")
for part in ("noisy", "enhanced"):
    summary = json.loads((exp / f"{part}.json").read_text())
    content["scores"]["test" if part == "enhanced" else "test_noisy"] = {k: m["mean"] for k, m in summary["metrics"].items()}
content["provenance"]["shipped"] = provenance.stamp("torch", "pesq")
target = Path(pretrained.__file__).with_name(f"{name}.pt")
checkpoint.write(target, content)
checkpoint.write_index()
subprocess.run(["se-quant", "export", target, target.with_suffix(".onnx")], check=True)
print(target)
