#!/usr/bin/env bash
# FSPEN on a few hours of open speech and noise, mixed on the fly: how the included fspen was trained. There are thirteen trainings, each
# from the best model of the one before: DIR/first without a perceptual loss; DIR/second, DIR/third and DIR/fourth with one; three
# with losses that weigh it against waveform and envelopes: these raise STOI and SI-SDR, and DIR/seventh brings PESQ back; the last six
# with dpcrn_cf as the teacher, which raises all, and the last three of them with more against noise in pauses.
#
# CORPUS holds lists/{speech,noise}_train.scp and lists/{valid,test}_{noisy,clean}.scp; CORPUS_MORE (optional) holds further
# lists/{speech,noise}_train.scp. The paths in them are relative to the folder.
#
#   bash recipes/open/fspen.sh --root CORPUS --more CORPUS_MORE
conf=fspen_open_balanced
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open fspen "$@"

mini_set='steps=150'
perceptual=fspen_open_perceptual
train_first first fspen_open
train_first second $perceptual optimizer=adamw ema=0 seed=2 steps=700 lr=6.0e-4 losses.perceptual=0.4 valid_every=350
train_first third $perceptual optimizer=adamw ema=0 seed=3 steps=2600 losses.perceptual=0.5 valid_every=650
train_first fourth $perceptual
train_first fifth "$conf"
balance=(losses.snr=0.7 losses.envelope=1.0 weight_decay=0.05)
train_first sixth "$conf" "${balance[@]}" seed=52 steps=2400 lr=8.0e-4 valid_every=800
train_first seventh "$conf" "${balance[@]}" seed=53 steps=600 lr=3.0e-4 lr_end=1.0e-6 losses.perceptual=0.9 valid_every=600
taught=("${balance[@]}" teacher.model=dpcrn_cf mixing.clean_only=0.04 lr=8.0e-4 lr_end=1.0e-6)
train_first eighth "$conf" "${taught[@]}" seed=71 steps=500 losses.perceptual=0.9 ema=0.99 valid_every=500
train_first ninth "$conf" "${taught[@]}" seed=72 steps=650 lr=5.0e-4 losses.perceptual=1.3 ema=0.99 valid_every=650
train_first tenth "$conf" "${taught[@]}" seed=73 steps=4500 losses.perceptual=1.2 ema=0.995 valid_every=1500
train_first eleventh "$conf" "${taught[@]}" seed=74 steps=900 lr=3.0e-4 losses.perceptual=1.4 losses.residual=0.7 ema=0.99 valid_every=900
taught+=(ema=0.998 valid_every=3000)
train_first twelfth "$conf" "${taught[@]}" seed=75 steps=9000 lr=1.2e-3 losses.perceptual=1.3 losses.residual=0.7
run_stages "${taught[@]}" seed=76 steps=6000 lr=1.0e-3 losses.perceptual=1.45 losses.residual=0.9
