#!/usr/bin/env bash
# FSPEN on a few hours of open speech and noise, mixed on the fly: how the included fspen was trained. There are four trainings, each
# from the best model of the one before: DIR/first without a perceptual loss; DIR/second, DIR/third and DIR with one.
#
# CORPUS holds lists/{speech,noise}_train.scp and lists/{valid,test}_{noisy,clean}.scp; CORPUS_MORE (optional) holds further
# lists/{speech,noise}_train.scp. The paths in them are relative to the folder.
#
#   bash recipes/open/fspen.sh --root CORPUS --more CORPUS_MORE
conf=fspen_open_perceptual
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open fspen "$@"

mini_set='steps=150'
train_first first fspen_open
train_first second "$conf" optimizer=adamw ema=0 seed=2 steps=700 lr=6.0e-4 losses.perceptual=0.4 valid_every=350
train_first third "$conf" optimizer=adamw ema=0 seed=3 steps=2600 losses.perceptual=0.5 valid_every=650
run_stages
