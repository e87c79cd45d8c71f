#!/usr/bin/env bash
# Lite-RTSE on a few hours of open speech and noise, mixed as training goes: what setk/pretrained/lite_rtse.pt was made with. The
# corpus is described in fspen.sh beside it.
#
#   bash recipes/open/lite_rtse.sh --root CORPUS --more CORPUS_MORE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
more=${OPEN_MORE:-}            # its noises, the longer versions, stand for those of the root
dir=                           # experiment; default exp/open/lite_rtse, or exp/mini/open_lite_rtse
data=                          # data directories; default exp/open/data
shards=                        # default exp/open/shards
conf=lite_rtse_open
set=
init=                          # checkpoint to start from
noisy_gate=false
stage=0
stop_stage=6
nj=2
. recipes/utils/parse_options.sh

. recipes/utils/corpus.sh open lite_rtse
paper_rows=
. recipes/utils/stages.sh
