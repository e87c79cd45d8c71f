"""parts.py NOISY.scp CLEAN.scp [MODEL...]: what the parts of models contribute, as sections of Markdown on standard output; without MODEL,
of all included ones."""

import sys

import numpy as np
import torch

from setk.cli import shell
from setk import engines, pretrained
from setk.audio import read_mono
from setk.compress.parts import JUDGES, contributes, mean_scores, part_out
from setk.cost.synops import firing_rates
from setk.data.lists import read_list
from setk.models import Model
from setk.nn import pitch

TITLES = {"pesq_wb": "PESQ-WB", "stoi": "STOI", "si_sdr": "SI-SDR, dB"}
SHOWN = {"pesq_wb": ".3f", "stoi": ".4f", "si_sdr": ".2f"}
BANDS = (62.5, 100, 130, 170, 220, 290, 380, 500)  # Hz, of the histogram of pitch
NEAR, FAR = 0.03, 0.2  # relative errors of pitch that count as right, and as gross


def cells(scores: dict[str, float]) -> str:
    return " | ".join(format(scores[name], SHOWN[name]) for name in JUDGES)


def table(models: dict[str, Model], pairs: list) -> None:
    print(f"| model | without | {' | '.join(TITLES[name] for name in JUDGES)} | contributes |")
    print("|---|---|---|---|---|---|")
    print(f"| noisy | | {cells(mean_scores(None, pairs))} | |")
    for name, model in models.items():
        for row in part_out(model, pairs):
            verdict = "" if "lost" not in row else "yes" if contributes(row["lost"]) else "no"
            print(f"| {name} | {row['without']} | {cells(row)} | {verdict} |", flush=True)
    print(
        f"\nMeans over {len(pairs)} pairs. A part contributes if the model is worse without it by at least two of the three metrics."
    )


def neurons(name: str, model: Model, pairs: list) -> None:
    """Neurons of a spiking model that never fire."""
    print(f"\n## Neurons of {name}\n\n| layer | neurons | never fire | mean rate |\n|---|---|---|---|")
    for layer, rates in firing_rates(model, [torch.from_numpy(noisy) for noisy, _ in pairs]).items():
        print(f"| {layer} | {len(rates)} | {int((rates == 0).sum())} | {float(rates.mean()):.3f} |")


def pitch_of(model: Model, pairs: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Period of the clean speech, 0 where unvoiced, and most probable class of every frame of all pairs."""
    found: list[torch.Tensor] = []
    hook = model.pitch.register_forward_hook(lambda module, args, logits: found.append(logits.argmax(-1)))
    periods, classes = [], []
    for noisy, clean in pairs:
        found.clear()
        with torch.inference_mode():
            model.enhance(torch.from_numpy(noisy)[None])
        periods.append(pitch.periods(torch.from_numpy(clean)[None], model.transform)[0])
        classes.append(torch.cat(found, 1)[0, -len(periods[-1]) :])
    hook.remove()
    return torch.cat(periods), torch.cat(classes)


def pitch_summary(periods: torch.Tensor, classes: torch.Tensor) -> dict[str, float]:
    """Figures of the classes of frames against the periods of clean speech; errors are of frames that both call voiced."""
    voiced, called = periods > 0, classes != pitch.VOICED
    both = voiced & called
    error = ((pitch.LONGEST - classes[both]) / periods[both] - 1).abs()
    return {
        "frames": len(periods),
        "classes": len(classes.unique()),
        "voicing_accuracy": float((voiced == called).float().mean()),
        "voiced_found": float(called[voiced].float().mean()),
        "false_voiced": float(called[~voiced].float().mean()),
        "median_error": float(error.median()) if len(error) else float("nan"),
        "near": float((error < NEAR).float().mean()),
        "gross": float((error > FAR).float().mean()),
    }


def histogram(name: str, model: Model, pairs: list) -> None:
    """Frames by pitch of the clean speech (rows) and by the model's class (columns)."""
    periods, classes = pitch_of(model, pairs)
    edges = np.array(BANDS)

    def band(hertz: torch.Tensor, voiced: torch.Tensor) -> np.ndarray:
        inside = np.clip(np.digitize(hertz.numpy(), edges[1:-1]), 0, len(edges) - 2)
        return np.where(voiced.numpy(), inside, len(edges) - 1)

    rows = band(16000 / periods.clamp(min=1), periods > 0)
    columns = band(16000 / (pitch.LONGEST - classes).clamp(min=1), classes != pitch.VOICED)
    counts = np.zeros((len(edges), len(edges)), int)
    np.add.at(counts, (rows, columns), 1)
    labels = [f"{a:g}-{b:g} Hz" for a, b in zip(edges, edges[1:])] + ["unvoiced"]
    print(f"\n## Pitch classes of {name}: frames by pitch of the clean speech (rows) and class (columns)\n")
    print(f"| | {' | '.join(labels)} |\n|{'---|' * (len(labels) + 1)}")
    for label, row in zip(labels, counts):
        print(f"| {label} | {' | '.join(map(str, row))} |")
    s = pitch_summary(periods, classes)
    print(
        f"\n{s['classes']} of {pitch.VOICED + 1} classes are used. Voicing is right in {s['voicing_accuracy']:.1%} of {s['frames']} frames: "
        f"{s['voiced_found']:.1%} of the voiced are found, {s['false_voiced']:.1%} of the unvoiced are called voiced. Where both are voiced "
        f"the median error is {s['median_error']:.2%}; {s['near']:.1%} are within {NEAR:.0%}, and {s['gross']:.1%} are off by over {FAR:.0%}."
    )


def read_pairs(noisy: str, clean: str) -> list:
    """(noisy, clean) of each utterance of two wav lists, at 16 kHz."""
    references = read_list(clean)
    return [
        tuple(read_mono(path, 16000)[0] for path in (path, references[utt])) for utt, path in read_list(noisy).items()
    ]


def main(noisy: str, clean: str, *names: str) -> None:
    torch.set_num_threads(1)
    models = {name: engines.model(name, weights=True).model.eval() for name in names or pretrained.included()}
    pairs = read_pairs(noisy, clean)
    table(models, pairs)
    for name, model in models.items():
        if hasattr(model, "synapses"):
            neurons(name, model, pairs)
        if hasattr(model, "pitch"):
            histogram(name, model, pairs)


if __name__ == "__main__":
    shell.script(lambda: main(*sys.argv[1:]), "parts.py")
