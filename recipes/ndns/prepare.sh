#!/usr/bin/env bash
# The corpus of the Intel N-DNS Challenge -> data directories and shards. With --clean and --noise, the sets are made in the
# root first, each source file for one set only.
#
#   bash recipes/ndns/prepare.sh                           a small generated tree
#   bash recipes/ndns/prepare.sh --root /data/NDNS --nj 16 holds training_set and the others; SETK_CMD=slurm: array jobs
#   bash recipes/ndns/prepare.sh --root NEW --clean DNS/clean --noise DNS/noise --nj 64
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${NDNS_ROOT:-}            # N-DNS: holds training_set and the others, or will; empty: a generated tree
clean=                         # folder of clean speech to make the sets of
noise=                         # folder of noise
clips=60000,60000,60000        # to make for training, validation and test
dir=                           # logs; default exp/ndns/prepare, or exp/mini/prepare_ndns
data=                          # data directories; default exp/ndns/data
shards=                        # default exp/ndns/shards, which the papers share
set=
stage=0                        # 0 prepare, 1 shards
stop_stage=1
nj=2                           # parallel jobs
. recipes/utils/parse_options.sh

. recipes/utils/corpus.sh ndns prepare
. recipes/utils/stages.sh
