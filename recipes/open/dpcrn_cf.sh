#!/usr/bin/env bash
# DPCRN-CF (reconstruction) on a few hours of open speech and noise, mixed as training goes: what setk/pretrained/dpcrn_cf.pt
# was made with, in five trainings, each from the best of the one before: towards PESQ more and more. The last one, DIR/last,
# goes too far, and DIR/best.pt is the mean of its weights and those it began from. The corpus is described in fspen.sh beside it.
#
#   bash recipes/open/dpcrn_cf.sh --root CORPUS --more CORPUS_MORE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
more=${OPEN_MORE:-}            # its noises, the longer versions, stand for those of the root
dir=                           # experiment; default exp/open/dpcrn_cf, or exp/mini/open_dpcrn_cf
data=                          # data directories; default exp/open/data
shards=                        # default exp/open/shards
conf=dpcrn_cf_open_perceptual
set=                           # for all trainings
init=                          # checkpoint to start the last from, in place of those before it
noisy_gate=false
stage=0
stop_stage=6
nj=2
. recipes/utils/parse_options.sh

mini_steps=100
. recipes/utils/corpus.sh open dpcrn_cf
shown='dpcrn_cf (a reconstruction)'
paper_rows=
. recipes/utils/earlier.sh
earlier first dpcrn_cf_open
earlier second "$conf" optimizer=adamw ema=0 seed=2 segment=1.5 steps=1700 losses.perceptual=0.4 valid_every=850
earlier third "$conf" optimizer=adamw ema=0 seed=3 steps=5000 lr=1.5e-3 losses.perceptual=0.5 valid_every=1000
earlier fourth "$conf" seed=4 steps=8000 lr=1.5e-3 losses.perceptual=0.6 valid_every=1000
part "$dir/last" 0 2
if due 2; then
    # shellcheck disable=SC2086
    $cpu_cmd "$dir/log/mean.log" "$python" -P recipes/utils/mean.py "$valid" "$dir/best.pt" "$init" "$dir/last/last.pt"
fi
stage=$((stage > 3 ? stage : 3))
. recipes/utils/stages.sh
