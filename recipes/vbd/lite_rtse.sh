#!/usr/bin/env bash
# Lite-RTSE on VoiceBank+DEMAND: 1.56 M parameters, 637 MMAC/s, 32 ms latency. Public re-implementation: PESQ-WB 2.67.
#
#   bash recipes/vbd/lite_rtse.sh                          set-up and the whole chain on the embedded corpus
#   bash recipes/vbd/lite_rtse.sh --root /data/VBD --nj 16 the paper's corpus (48 kHz zips unpacked); SETK_CMD=slurm: a cluster
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${VBD_ROOT:-}             # VoiceBank+DEMAND: holds noisy_trainset_28spk_wav and the others; empty: data/mini
dir=                           # experiment; default exp/vbd/lite_rtse, or exp/mini/lite_rtse
data=                          # data directories; default exp/vbd/data
shards=                        # default exp/vbd/shards, which the papers share
conf=lite_rtse
set=                           # space-separated key=value on top of the conf
init=                          # checkpoint to start from
noisy_gate=true                # stop unless the noisy test set scores as published
stage=0                        # 0 prepare, 1 shards, 2 train, 4 enhance, 5 score, 6 count and RESULTS.md
stop_stage=6
nj=2                           # parallel jobs of stages 0, 1, 4 and 5
. recipes/utils/parse_options.sh

mini_steps=100                 # the model is slow
. recipes/utils/corpus.sh vbd lite_rtse
paper_rows='| DCCRN (via S-DCCRN) | 3.7 M | | 11.13 G | 2.54 | 0.938 | | |
| Lite-RTSE (public re-implementation) | 1.56 M | | 0.66 G | 2.67 | 0.936 | | 18.4 |
| DPCRN-CF (arXiv 2306.00812) | 0.43 M | | 0.30 G | 3.18 | 0.948 | | 18.4 |'
. recipes/utils/stages.sh
