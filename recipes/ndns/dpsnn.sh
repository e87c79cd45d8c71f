#!/usr/bin/env bash
# DPSNN, a spiking network, on the corpus of the Intel Neuromorphic DNS Challenge: 373 k parameters, 5 ms latency, and its
# operations as they are measured on the noisy test set.
#
#   bash recipes/ndns/dpsnn.sh                           the whole chain on the embedded corpus
#   bash recipes/ndns/dpsnn.sh --root /data/NDNS --nj 16 holds training_set, validation_set and test_set_1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${NDNS_ROOT:-}            # N-DNS: holds training_set and the others; empty: data/mini
dir=                           # experiment; default exp/ndns/dpsnn, or exp/mini/ndns_dpsnn
data=                          # data directories; default exp/ndns/data
shards=                        # default exp/ndns/shards
conf=dpsnn_ndns
set=                           # space-separated key=value on top of the conf
init=                          # checkpoint to start from
noisy_gate=false               # the gate knows VoiceBank+DEMAND's figures only
stage=0                        # 0 prepare, 1 shards, 2 train, 4 enhance, 5 score, 6 count and RESULTS.md
stop_stage=6
nj=2                           # parallel jobs of stages 0, 1, 4 and 5
. recipes/utils/parse_options.sh

. recipes/utils/corpus.sh ndns dpsnn
paper_rows='| noisy (test set 1, published) | | | | | | | 7.37 |
| Intel SDNN baseline | 525 k | | | | | | 12.26 |
| Spiking-FullSubNet S, M, L, XL (the winner) | 1798 k (XL) | | | | | | 13.89, 14.71, 14.80, 15.20 |'
. recipes/utils/stages.sh

if due 6; then
    se-count "$dir/best.pt" --list "$test/noisy.scp" --json | "$python" recipes/utils/spikes.py | tee -a "$dir/RESULTS.md"
fi
