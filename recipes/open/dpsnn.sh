#!/usr/bin/env bash
# DPSNN, a spiking network, on a few hours of open speech and noise, mixed as training goes: a quarter of an hour of a core.
#
#   bash recipes/open/dpsnn.sh --root CORPUS --more CORPUS_MORE
#
# The folders are those of recipes/open/fspen.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
more=${OPEN_MORE:-}            # its noises, the longer versions, stand for those of the root
dir=                           # experiment; default exp/open/dpsnn, or exp/mini/open_dpsnn
data=                          # data directories; default exp/open/data
shards=                        # default exp/open/shards, which the papers share
conf=dpsnn_open
set=                           # space-separated key=value on top of the conf
init=                          # checkpoint to start from
noisy_gate=false
stage=0                        # 0 prepare, 1 shards, 2 train, 4 enhance, 5 score, 6 count and RESULTS.md
stop_stage=6
nj=2                           # parallel jobs of stages 0, 1, 4 and 5
. recipes/utils/parse_options.sh

. recipes/utils/corpus.sh open dpsnn
paper_rows=
. recipes/utils/stages.sh

if due 6; then
    se-count "$dir/best.pt" --list "$test/noisy.scp" --json | "$python" recipes/utils/spikes.py | tee -a "$dir/RESULTS.md"
fi
