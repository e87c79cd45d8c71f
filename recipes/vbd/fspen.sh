#!/usr/bin/env bash
# FSPEN on VoiceBank+DEMAND: 86 k parameters, 72.5 MMAC/s, 32 ms latency. Paper: PESQ-WB 2.97 with 79 k.
#
#   bash recipes/vbd/fspen.sh                          set-up and the whole chain on the embedded corpus, two minutes
#   bash recipes/vbd/fspen.sh --root /data/VBD --nj 16 the paper's corpus (48 kHz zips unpacked); SETK_CMD=slurm: a cluster
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${VBD_ROOT:-}             # VoiceBank+DEMAND: holds noisy_trainset_28spk_wav and the others; empty: data/mini
dir=                           # experiment; default exp/vbd/fspen, or exp/mini/fspen
data=                          # data directories; default exp/vbd/data
shards=                        # default exp/vbd/shards, which the papers share
conf=fspen
set=                           # space-separated key=value on top of the conf
init=                          # checkpoint to start from, as in --init fspen
noisy_gate=true                # stop unless the noisy test set scores as published
stage=0                        # 0 prepare, 1 shards, 2 train, 4 enhance, 5 score, 6 count and RESULTS.md
stop_stage=6
nj=2                           # parallel jobs of stages 0, 1, 4 and 5
. recipes/utils/parse_options.sh

. recipes/utils/corpus.sh vbd fspen
paper_rows='| FSPEN (Yang et al. 2024) | 79 k | | 89 M | 2.97 | 0.942 | | |
| FSPEN (a re-implementation, mean of 5 seeds) | 79 k | 64 M | | 3.00 | 0.942 | 0.850 | 18.4 |'
. recipes/utils/stages.sh
