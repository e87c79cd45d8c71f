"""The archives of the public corpora: addresses, sizes, checksums, licences. `se-prep get` and docs/corpora.md are made from it.

Sizes are exact bytes, checksums are those that the publisher lists. None means that the publisher lists none, or that it is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class Archive:
    """One file to download.

    `addresses` are tried in this order. `checksum` is "md5:…" or "sha256:…". `folder` is where its content goes, below the folder
    of the corpus; `makes` is a folder that exists when it has been unpacked. A file that is not `packed` stays as it is: in
    `folder` if it names one, else among the archives. A corpus is complete without its `optional` archives.
    """

    name: str
    addresses: tuple[str, ...]
    size: int | None = None
    checksum: str | None = None
    folder: str = ""
    makes: str = ""
    packed: bool = True
    optional: bool = False


@dataclass(frozen=True)
class Corpus:
    """A public corpus; `then` are the commands that follow a download, with {root} for its folder."""

    name: str
    title: str
    page: str
    reference: str
    licence: str
    disk: int  # bytes that archives and their content need, about
    archives: tuple[Archive, ...]
    tree: str
    then: tuple[str, str]
    remark: str = ""


def _vbd() -> tuple[Archive, ...]:
    rows = [  # name, bitstream, bytes, md5
        (
            "clean_trainset_28spk_wav",
            "245452b6-6235-44b6-a6f9-e7eb19797769",
            2486057279,
            "d2d5a45ec32f8fcbf201bde0447e20ba",
        ),
        (
            "noisy_trainset_28spk_wav",
            "ecb5a102-bb00-46d3-8af5-40c79823b837",
            2830205201,
            "1fca9e8bafb8cd069f6653c6d92f9e9c",
        ),
        ("clean_testset_wav", "dec213d3-bf57-4777-9663-c24bdce92d5e", None, "34eb1c0ba7ef667e9b966866c542fc16"),
        ("noisy_testset_wav", "13c1bfbf-14a6-41db-9b41-8f7310f01ad5", None, "fb1b86caa31e8ba5b506c0c64da9aab5"),
    ]
    site = "https://datashare.ed.ac.uk"
    wavs = [
        Archive(
            f"{name}.zip",
            (f"{site}/bitstreams/{bitstream}/download", f"{site}/bitstream/handle/10283/2791/{name}.zip"),
            size,
            f"md5:{md5}",
            makes=name,
        )
        for name, bitstream, size, md5 in rows
    ]
    logs = Archive(
        "logfiles.zip",
        (f"{site}/bitstream/handle/10283/2791/logfiles.zip",),
        None,
        "md5:0d16f5b6afe12d64238d1e4a0e6ff6e8",
        optional=True,
    )
    return (*wavs, logs)


def _librimix() -> tuple[Archive, ...]:
    rows = [  # part, bytes, md5
        ("dev-clean", 337926286, "42e2234ba48799c1f50f24a7926300a1"),
        ("test-clean", 346663984, "32fa31d27d2e1cad72775fee3f4849a9"),
        ("train-clean-100", 6387309499, "2a93770f6d5c6c964bc36631d331a522"),
        ("train-clean-360", 23049477885, "c0e676e450a7ff2f54aeade5171606fa"),
    ]
    speech = [
        Archive(
            f"{part}.tar.gz",
            (f"https://www.openslr.org/resources/12/{part}.tar.gz",),
            size,
            f"md5:{md5}",
            makes=f"LibriSpeech/{part}",
        )
        for part, size, md5 in rows
    ]
    noise = Archive(
        "wham_noise.zip",
        (
            "https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com/wham_noise.zip",
            "https://storage.googleapis.com/whisper-public/wham_noise.zip",
        ),
        makes="wham_noise",
    )
    lists = [
        Archive(
            f"libri2mix_{part}.csv",
            (f"https://raw.githubusercontent.com/JorisCos/LibriMix/master/metadata/Libri2Mix/libri2mix_{part}.csv",),
            folder="metadata/Libri2Mix",
            packed=False,
        )
        for part, _, _ in rows
    ]
    return (*speech, noise, *lists)


# Speech of DNS 4: kind, number of archives, limits of their ratings; the last archives have no rating.
_DNS_SPEECH = (
    ("VocalSet_48kHz_mono", 1, ""),
    ("emotional_speech", 1, ""),
    ("french_speech", 9, ""),
    ("german_speech", 43, "0.00 3.47 3.64 3.74 3.81 3.86 3.91 3.96 4.00 4.04 4.08 4.12 4.16 4.21 4.26 4.33 4.43"),
    ("italian_speech", 6, "0.00 3.98 4.21 4.40"),
    (
        "read_speech",
        40,
        "0.00 3.75 3.88 3.96 4.02 4.06 4.10 4.13 4.16 4.19 4.21 4.24 4.26 4.29 4.31 4.33 4.35 4.38 4.40 4.42 4.45 4.48 "
        "4.52 4.57 4.67",
    ),
    ("russian_speech", 2, "0.00 4.31"),
    ("spanish_speech", 9, "0.00 4.09"),
)
_DNS_UNRATED = (("clean", "vctk_wav48_silence_trimmed", 5), ("noise", "audioset", 7), ("noise", "freesound", 2))
_TEST_SET_1 = (
    ("z01", "5a9db767901efa5b59d24494540c759f"),
    ("z02", "8344d9b04cbfc40cae76bc0f7d80747b"),
    ("z03", "fd9c5939d3b217027e283fda7b946eb3"),
    ("z04", "a64c377ee0fb4aa62b8136d31dd9aaab"),
    ("z05", "64405335277b487931b0f9364f7949d1"),
    ("z06", "edde16013596a935af26ce6b12c8790d"),
    ("z07", "22139e09f27b823f3f091d629965d5d6"),
    ("z08", "7dc88123f3c080e13efe6e50dd8e7a86"),
    ("z09", "33d03da5d00dcb0ba0de5103cf196384"),
    ("zip", "a077917527dc22bf4b047cc3d1a22976"),
)


def _ndns() -> tuple[Archive, ...]:
    names = []
    for kind, count, limits in _DNS_SPEECH:
        bounds = limits.split() + ["NA"] * (count + 1)
        names += [("clean", f"{kind}_{i:03}_{bounds[i]}_{bounds[i + 1]}") for i in range(count)]
    for side, kind, count in _DNS_UNRATED:
        names += [(side, f"{kind}_{i:03}") for i in range(count)]
    site = "https://dns4public.blob.core.windows.net/dns4archive/datasets_fullband"
    sources = [
        Archive(file := f"datasets_fullband.{side}_fullband.{name}.tar.bz2", (f"{site}/{side}_fullband/{file}",))
        for side, name in names
    ]
    media = "https://media.githubusercontent.com/media/IntelLabs/IntelNeuromorphicDNSChallenge/test_set_1/test_set_1"
    test = [
        Archive(
            f"test_set_1.{suffix}",
            (f"{media}/test_set_1.{suffix}",),
            342348113 if suffix == "zip" else 3221225472,
            f"md5:{md5}",
            packed=False,
            optional=True,
        )
        for suffix, md5 in _TEST_SET_1
    ]
    return (*sources, *test)


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            "vbd",
            "VoiceBank+DEMAND",
            "https://datashare.ed.ac.uk/handle/10283/2791",
            "C. Valentini-Botinhao, Noisy speech database for training speech enhancement algorithms and TTS models, University of "
            "Edinburgh, 2017, doi:10.7488/ds/2117",
            "CC BY 4.0",
            13 * GB,
            _vbd(),
            "clean_trainset_28spk_wav/p226_001.wav …   11,572 wavs, 48 kHz\n"
            "noisy_trainset_28spk_wav/p226_001.wav …   the same names\n"
            "clean_testset_wav/p232_001.wav …          824 wavs\n"
            "noisy_testset_wav/p232_001.wav …\n"
            "log_trainset_28spk.txt, log_testset.txt   SNRs, from logfiles.zip; optional",
            (
                "se-prep vbd {root} data/vbd",
                "se-train fspen --train data/vbd/train --valid data/vbd/valid --out exp/fspen",
            ),
        ),
        Corpus(
            "librimix",
            "Libri2Mix: LibriSpeech, WHAM noise and the lists of LibriMix",
            "https://github.com/JorisCos/LibriMix",
            "J. Cosentino, M. Pariente, S. Cornell, A. Deleforge, E. Vincent, LibriMix: An Open-Source Dataset for Generalizable Speech "
            "Separation, arXiv 2005.11262, 2020",
            "LibriSpeech: CC BY 4.0. WHAM noise: CC BY-NC 4.0, for research. Lists: MIT",
            113 * GB,
            _librimix(),
            "LibriSpeech/train-clean-360/ …            and train-clean-100, dev-clean, test-clean: flac, 16 kHz\n"
            "wham_noise/{tr,cv,tt}/*.wav\n"
            "metadata/Libri2Mix/libri2mix_*.csv        which files are mixed, and their gains",
            (
                "se-prep librimix {root}/metadata/Libri2Mix data/librimix --librispeech {root}/LibriSpeech --wham {root}/wham_noise",
                "se-train conv_tasnet --train data/librimix/train --valid data/librimix/valid --out exp/conv_tasnet",
            ),
            "The mixtures are computed when they are read. Written as wav files they would need about 430 GB more.",
        ),
        Corpus(
            "ndns",
            "Intel N-DNS Challenge: speech and noise of the DNS Challenge 4 (ICASSP 2022)",
            "https://github.com/IntelLabs/IntelNeuromorphicDNSChallenge",
            "J. Timcheck et al., The Intel Neuromorphic DNS Challenge, arXiv 2303.09503, 2023",
            "Each source has its own licence, listed at https://github.com/microsoft/DNS-Challenge",
            1450 * GB,
            _ndns(),
            "datasets_fullband/clean_fullband/ …       speech, 48 kHz\n"
            "datasets_fullband/noise_fullband/ …       noise\n"
            "training_set/, validation_set/, test_set_1/{noisy,clean,noise}/*.wav   made by se-prep ndns",
            (
                "se-prep ndns {root} data/ndns --clean {root}/datasets_fullband/clean_fullband --noise "
                "{root}/datasets_fullband/noise_fullband",
                "se-train dpsnn_ndns --train data/ndns/train --valid data/ndns/valid --out exp/dpsnn",
            ),
            "The three sets that se-prep ndns makes need about 520 GB more. The test set of the challenge is a zip file in ten parts, which "
            "`zip -s0 archives/test_set_1.zip --out test.zip && unzip test.zip` joins and unpacks. A part of the sources: "
            "`se-prep get ndns DIR --only '*read_speech*' --only '*noise*'`.",
        ),
    )
}


def document() -> str:
    """docs/corpora.md."""
    lines = [
        "# Corpora",
        "",
        "Made by `python -m setk.data.corpora.archives` from the table that `se-prep get` uses. Do not edit.",
        "",
        "`se-prep get CORPUS DIR` downloads a corpus into DIR, continues a download that broke off, compares sizes and checksums,",
        "unpacks, and prints the two commands that follow. Without a network it checks what is in `DIR/archives`: archives that",
        "were downloaded elsewhere can be put there. Sizes and checksums are those that are published; `-` marks one that",
        "is not.",
    ]
    for corpus in CORPORA.values():
        lines += [
            "",
            f"## {corpus.name}: {corpus.title}",
            "",
            f"- Page: <{corpus.page}>",
            f"- Reference: {corpus.reference}",
            f"- Licence: {corpus.licence}",
            f"- Free disk needed: about {corpus.disk // GB} GB, archives included",
            "",
        ]
        lines += [corpus.remark, ""] if corpus.remark else []
        lines += [
            "Expected tree:",
            "",
            "```text",
            *corpus.tree.splitlines(),
            "```",
            "",
            "Commands:",
            "",
            "```text",
            f"se-prep get {corpus.name} DIR",
            *(command.format(root="DIR") for command in corpus.then),
            "```",
            "",
            "| archive | bytes | checksum |",
            "|---|---:|---|",
        ]
        # A table of archives about which nothing more is known would only be long.
        known = [a for a in corpus.archives if a.size or a.checksum or len(corpus.archives) < 20]
        lines += [
            f"| [{a.name}]({a.addresses[0]}){' (optional)' if a.optional else ''} | {a.size or '-'} | {a.checksum or '-'} |"
            for a in known
        ]
        by_folder: dict[str, list[str]] = {}
        for archive in corpus.archives:
            if archive not in known:
                by_folder.setdefault(archive.addresses[0].rpartition("/")[0], []).append(archive.name)
        for folder, names in by_folder.items():
            lines += [
                "",
                f"{len(names)} archives of <{folder}/>, without published sizes or checksums:",
                "",
                "```text",
                *names,
                "```",
            ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
