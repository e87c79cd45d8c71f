#!/usr/bin/env bash
# DPSNN, a spiking network, on VoiceBank+DEMAND: 373 k parameters, 148 MMAC/s if it were dense, 5 ms latency. Validation is
# on p226 and p287, where the published training chose its model on the test set.
#
#   bash recipes/vbd/dpsnn.sh                          the whole chain on the embedded corpus
#   bash recipes/vbd/dpsnn.sh --root /data/VBD --nj 16 the paper's corpus; SETK_CMD=slurm: a cluster
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${VBD_ROOT:-}             # VoiceBank+DEMAND: holds noisy_trainset_28spk_wav and the others; empty: data/mini
dir=                           # experiment; default exp/vbd/dpsnn, or exp/mini/dpsnn
data=                          # data directories; default exp/vbd/data
shards=                        # default exp/vbd/shards, which the papers share
conf=dpsnn
set=                           # space-separated key=value on top of the conf; config.segment_reset=1.0: the published test
init=                          # checkpoint to start from
noisy_gate=true                # stop unless the noisy test set scores as published
stage=0                        # 0 prepare, 1 shards, 2 train, 4 enhance, 5 score, 6 count and RESULTS.md
stop_stage=6
nj=2                           # parallel jobs of stages 0, 1, 4 and 5
. recipes/utils/parse_options.sh

. recipes/utils/corpus.sh vbd dpsnn
paper_rows='| DPSNN (Sun & Bohte 2024; SI-SNR of segments of 1 s, chosen on the test set) | 373 k | 148 M | | | | | 18.46 |'
. recipes/utils/stages.sh

if due 6; then
    se-count "$dir/best.pt" --list "$test/noisy.scp" --json | "$python" recipes/utils/spikes.py | tee -a "$dir/RESULTS.md"
fi
