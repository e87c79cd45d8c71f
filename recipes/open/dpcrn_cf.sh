#!/usr/bin/env bash
# DPCRN-CF (a reconstruction) on a few hours of open speech and noise, mixed on the fly: how the included dpcrn_cf was trained. There
# are sixteen trainings, each from the best model of the one before. The first five are on the enhanced speech, more and more towards PESQ;
# the fifth goes too far, and DIR/mean is the mean of its weights and those that it started from. Then the pitch network alone learns F0 of
# the clean speech, then the comb and the decoder with it, then the complete model in four, with means of their weights. In the last five
# half of the segments continue a recording (context), without which the model loses 2 dB in a recording of minutes. Three of the five are
# towards PESQ, and means keep a balance. The rate of the fourth of them fell as for 9000 steps and was stopped at 4973, where its lr_end
# here is. fspen.sh describes the corpus.
#
#   bash recipes/open/dpcrn_cf.sh --root CORPUS --more CORPUS_MORE
conf=dpcrn_cf_open_balanced
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open dpcrn_cf "$@"

mini_set='steps=100'
shown='dpcrn_cf (a reconstruction)'
perceptual=dpcrn_cf_open_perceptual
train_first first dpcrn_cf_open
train_first second $perceptual optimizer=adamw ema=0 seed=2 segment=1.5 steps=1700 losses.perceptual=0.4 valid_every=850
train_first third $perceptual optimizer=adamw ema=0 seed=3 steps=5000 lr=1.5e-3 losses.perceptual=0.5 valid_every=1000
train_first fourth $perceptual seed=4 steps=8000 lr=1.5e-3 losses.perceptual=0.6 valid_every=1000
if [[ ! $own_init ]]; then
    conf=$perceptual part "$dir/fifth" 0 2
    average_into "$dir/mean" "$dir/fifth/last.pt"
fi
train_first pitch dpcrn_cf_open_pitch
train_first joint dpcrn_cf_open_joint
train_first balanced "$conf"
balance=(losses.snr=0.9 losses.envelope=1.5 lr_end=1.0e-6)
train_first longer "$conf" "${balance[@]}" losses.perceptual=1.0 seed=16 steps=1300 lr=8.0e-4 valid_every=1300
train_first last "$conf" "${balance[@]}" losses.perceptual=1.8 seed=17 steps=400 warmup=30 lr=3.0e-4 valid_every=400
if [[ ! $own_init ]]; then
    average_into "$dir/between" "$init" "$dir/longer/best.pt"
fi
train_first high "$conf" "${balance[@]}" losses.perceptual=1.2 mixing.high_voice=0.25 seed=62 steps=1800 lr=8.0e-4 valid_every=900
if [[ ! $own_init ]]; then
    average_into "$dir/both" "$dir/between/best.pt"
fi
balance+=(context=4.0 mixing.clean_only=0.04)
train_first context "$conf" "${balance[@]}" losses.perceptual=1.1 seed=21 steps=6000 lr=1.0e-3 valid_every=2000
train_first towards "$conf" "${balance[@]}" losses.perceptual=1.7 seed=22 steps=500 warmup=30 lr=3.0e-4 valid_every=500
train_first beyond "$conf" "${balance[@]}" losses.perceptual=2.4 losses.snr=0.8 seed=23 steps=450 warmup=20 lr=2.5e-4 valid_every=450
if [[ ! $own_init ]]; then
    average_into "$dir/within" "$dir/context/best.pt"
fi
balance+=(losses.snr=1.0 losses.envelope=2.0 losses.residual=0.4)
train_first heard "$conf" "${balance[@]}" losses.perceptual=1.2 seed=61 steps=4973 lr=8.0e-4 lr_end=3.3e-4 valid_every=1000
part "$dir/after" 0 2 "${balance[@]}" losses.perceptual=1.6 seed=63 steps=900 warmup=20 lr=3.0e-4 valid_every=900
average_into "$dir" "$dir/after/best.pt"
evaluate
