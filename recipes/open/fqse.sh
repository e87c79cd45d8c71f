#!/usr/bin/env bash
# FQSE on a few hours of open speech and noise: conv_tasnet.sh's model, which is trained first if there is none, in 8 bits; a
# quarter of an hour of a core. Plain quantization-aware training, to be seen beside it:
#
#   bash recipes/open/fqse.sh --root CORPUS --more CORPUS_MORE
#   bash recipes/open/fqse.sh --root CORPUS --more CORPUS_MORE --conf qat_open --dir exp/open/qat
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
more=${OPEN_MORE:-}            # its noises, the longer versions, stand for those of the root
dir=                           # experiment; default exp/open/fqse, or exp/mini/open_fqse
data=                          # data directories; default exp/open/data
shards=                        # default exp/open/shards
conf=fqse_open
set=
float=                         # experiment of conv_tasnet.sh; default exp/open/conv_tasnet, or exp/mini/open_conv_tasnet
init=                          # checkpoint in floating point to start from; default float's best
noisy_gate=false
stage=0
stop_stage=6
nj=2
. recipes/utils/parse_options.sh

mini_steps=60
. recipes/utils/corpus.sh open fqse
[[ $label != mini ]] || train_set=(quantization.observe=20 "${train_set[@]}")
. recipes/utils/from_float.sh
paper_rows=
. recipes/utils/stages.sh

if due 6; then
    "$python" recipes/utils/by_snr.py "$dir/noisy.tsv" "float=$float/enhanced.tsv" "${conf##*/}=$dir/enhanced.tsv" |
        tee -a "$dir/RESULTS.md"
fi
