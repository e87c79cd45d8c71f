#!/usr/bin/env bash
# Conv-TasNet's small preset on a few hours of open speech and noise, mixed as training goes: half an hour of a core. fqse.sh
# quantizes it; the corpus is described in fspen.sh beside it.
#
#   bash recipes/open/conv_tasnet.sh --root CORPUS --more CORPUS_MORE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
more=${OPEN_MORE:-}            # its noises, the longer versions, stand for those of the root
dir=                           # experiment; default exp/open/conv_tasnet, or exp/mini/open_conv_tasnet
data=                          # data directories; default exp/open/data
shards=                        # default exp/open/shards
conf=conv_tasnet_open
set=
init=                          # checkpoint to start from
noisy_gate=false
stage=0
stop_stage=6
nj=2
. recipes/utils/parse_options.sh

mini_steps=80
. recipes/utils/corpus.sh open conv_tasnet
paper_rows=
. recipes/utils/stages.sh

if due 6; then
    "$python" recipes/utils/by_snr.py "$dir/noisy.tsv" "float=$dir/enhanced.tsv" | tee -a "$dir/RESULTS.md"
fi
