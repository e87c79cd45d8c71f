#!/usr/bin/env bash
# FSPEN on a few hours of open speech and noise, mixed as training goes: what setk/pretrained/fspen.pt was made with.
# Four trainings, each from the best of the one before: DIR/first without, DIR/second, DIR/third and DIR with a perceptual loss.
#
#   bash recipes/open/fspen.sh --root CORPUS --more CORPUS_MORE
#
# CORPUS holds lists/{speech,noise}_train.scp and lists/{valid,test}_{noisy,clean}.scp, CORPUS_MORE (optional) further
# lists/{speech,noise}_train.scp; paths in them are relative to the folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
more=${OPEN_MORE:-}            # its noises, the longer versions, stand for those of the root
dir=                           # experiment; default exp/open/fspen, or exp/mini/open_fspen
data=                          # data directories; default exp/open/data
shards=                        # default exp/open/shards
conf=fspen_open_perceptual
set=                           # for all trainings
init=                          # checkpoint to start the last from, in place of those before it
noisy_gate=false
stage=0
stop_stage=6
nj=2
. recipes/utils/parse_options.sh

mini_steps=150
. recipes/utils/corpus.sh open fspen
paper_rows=
. recipes/utils/earlier.sh
earlier first fspen_open
earlier second "$conf" optimizer=adamw ema=0 seed=2 steps=700 lr=6.0e-4 losses.perceptual=0.4 valid_every=350
earlier third "$conf" optimizer=adamw ema=0 seed=3 steps=2600 losses.perceptual=0.5 valid_every=650
. recipes/utils/stages.sh
