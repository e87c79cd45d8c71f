#!/usr/bin/env bash
# VoiceBank+DEMAND -> data directories at 16 kHz, and shards: what the recipes beside this do first.
#
#   bash recipes/vbd/prepare.sh                          a small generated tree
#   bash recipes/vbd/prepare.sh --root /data/VBD --nj 16 the corpus (48 kHz zips unpacked); SETK_CMD=slurm: array jobs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${VBD_ROOT:-}             # VoiceBank+DEMAND: holds noisy_trainset_28spk_wav and the others; empty: a generated tree
dir=                           # logs; default exp/vbd/prepare, or exp/mini/prepare_vbd
data=                          # data directories; default exp/vbd/data
shards=                        # default exp/vbd/shards, which the papers share
set=
stage=0                        # 0 prepare, 1 shards
stop_stage=1
nj=2                           # parallel jobs
. recipes/utils/parse_options.sh

. recipes/utils/corpus.sh vbd prepare
. recipes/utils/stages.sh
