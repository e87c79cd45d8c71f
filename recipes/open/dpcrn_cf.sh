#!/usr/bin/env bash
# DPCRN-CF (a reconstruction) on a few hours of open speech and noise, mixed on the fly: how the included dpcrn_cf was trained. There
# are five trainings, each from the best model of the one before, and more and more towards PESQ. The last, DIR/last, goes too
# far: DIR/best.pt is the mean of its weights and those that it started from. fspen.sh describes the corpus.
#
#   bash recipes/open/dpcrn_cf.sh --root CORPUS --more CORPUS_MORE
conf=dpcrn_cf_open_perceptual
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open dpcrn_cf "$@"

mini_set='steps=100'
shown='dpcrn_cf (a reconstruction)'
train_first first dpcrn_cf_open
train_first second "$conf" optimizer=adamw ema=0 seed=2 segment=1.5 steps=1700 losses.perceptual=0.4 valid_every=850
train_first third "$conf" optimizer=adamw ema=0 seed=3 steps=5000 lr=1.5e-3 losses.perceptual=0.5 valid_every=1000
train_first fourth "$conf" seed=4 steps=8000 lr=1.5e-3 losses.perceptual=0.6 valid_every=1000
part "$dir/last" 0 2
average_with_init "$dir/last/last.pt"
part "$dir" 4 6
