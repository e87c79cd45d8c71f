#!/usr/bin/env bash
# DPCRN-CF (reconstruction) on a few hours of open speech and noise, mixed as training goes: what setk/pretrained/dpcrn_cf.pt
# was made with, in four trainings, each from the best of the one before. The corpus is described in fspen.sh beside it.
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
conf=recipes/conf/dpcrn_cf_open_perceptual.yaml
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
earlier first recipes/conf/dpcrn_cf_open.yaml
earlier second "$conf" optimizer=adamw ema=0 seed=2 segment=1.5 steps=1700 lr=1.0e-3 losses.perceptual=0.4 valid_every=850
earlier third "$conf" optimizer=adamw ema=0 seed=3 steps=5000 losses.perceptual=0.5
. recipes/utils/stages.sh
