#!/usr/bin/env bash
# Libri2Mix (mix_single, min, 16 kHz) -> data directories and shards, without wavs in between where the root has the sources.
#
#   bash recipes/librimix/prepare.sh                          a small generated tree
#   bash recipes/librimix/prepare.sh --root /data/L2M --nj 16 the corpus; SETK_CMD=slurm: array jobs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${LIBRIMIX_ROOT:-}        # holds wav16k, or LibriSpeech, wham_noise and metadata/Libri2Mix; empty: a generated tree
dir=                           # logs; default exp/librimix/prepare, or exp/mini/prepare_librimix
data=                          # data directories; default exp/librimix/data
shards=                        # default exp/librimix/shards, which the papers share
set=
stage=0                        # 0 prepare, 1 shards
stop_stage=1
nj=2                           # parallel jobs
. recipes/utils/parse_options.sh

. recipes/utils/corpus.sh librimix prepare
. recipes/utils/stages.sh
