#!/usr/bin/env bash
# Plain quantization-aware training of Conv-TasNet on Libri2Mix: 8 bits, ranges as they are observed.
# Begins from the float model of conv_tasnet.sh, which is trained first if there is none.
#
#   bash recipes/librimix/qat.sh                          the whole chain on the embedded corpus, its small preset
#   bash recipes/librimix/qat.sh --root /data/L2M --nj 16 the paper's corpus; SETK_CMD=slurm: a cluster
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${LIBRIMIX_ROOT:-}        # as prepare.sh beside it has it; empty: data/mini
dir=                           # experiment; default exp/librimix/qat, or exp/mini/librimix_qat
data=                          # data directories; default exp/librimix/data
shards=                        # default exp/librimix/shards, which the papers share
conf=qat
set=                           # space-separated key=value on top of the conf
float=                         # experiment of conv_tasnet.sh; default beside dir
init=                          # checkpoint in floating point to start from; default float's best
noisy_gate=false               # the gate knows VoiceBank+DEMAND's figures only
stage=0                        # 0 prepare, 1 shards, 2 train, 4 enhance, 5 score, 6 count and RESULTS.md
stop_stage=6
nj=2                           # parallel jobs of stages 0, 1, 4 and 5
. recipes/utils/parse_options.sh

mini_steps=60
. recipes/utils/corpus.sh librimix qat
[[ $label != mini ]] || train_set=(preset=conv_tasnet-small quantization.observe=20 "${train_set[@]}")
. recipes/utils/from_float.sh
paper_rows='| Conv-TasNet, float (Libri1Mix, published) | 5.00 M | 4.91 G | | | 0.931 | | 14.74 |
| vanilla QAT, 8 bits (published with FQSE) | 5.00 M | 4.91 G | | | | | 14.42 |
| FQSE, 8 bits (published) | 5.03 M | 4.96 G | | | | | 14.77 |'
. recipes/utils/stages.sh

if due 6; then
    "$python" recipes/utils/by_snr.py "$dir/noisy.tsv" "float, here=$float/enhanced.tsv" \
        "FQSE, here=${dir%qat}fqse/enhanced.tsv" "**vanilla QAT, here**=$dir/enhanced.tsv" | tee -a "$dir/RESULTS.md"
fi
