#!/usr/bin/env bash
# Libri2Mix (mix_single, min, 16 kHz) to data directories and shards; no wavs are written where the root has the sources. The
# root holds wav16k, or LibriSpeech, wham_noise and metadata/Libri2Mix.
#
#   bash recipes/librimix/prepare.sh                          prepare a small generated tree
#   bash recipes/librimix/prepare.sh --root /data/L2M --nj 16 prepare the corpus; SETK_CMD=slurm: as array jobs
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" librimix prepare "$@"

run_stages
