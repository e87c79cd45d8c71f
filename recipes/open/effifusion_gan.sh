#!/usr/bin/env bash
# EffiFusion-GAN, the small preset, on a few hours of open speech and noise, mixed on the fly: how the included effifusion_gan-small was
# trained, in eight trainings. All but the first are by Muon, with the losses `snr` and `envelope` beside those of MP-SENet, the last five
# with `perceptual` and `residual` too, the last four with 4 % of clean speech, and the last with dpcrn_cf as the teacher.
# fspen.sh describes the corpus.
#
#   bash recipes/open/effifusion_gan.sh --root CORPUS --more CORPUS_MORE
conf=effifusion_gan_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open effifusion_gan "$@"

mini_set='steps=20'
train_first first effifusion_gan_open
further=(optimizer=muon 'betas=[0.9, 0.99]' segment=1.5 losses.snr=0.5)
train_first second effifusion_gan_open "${further[@]}" losses.envelope=0.5 ema=0.995 seed=2 steps=375 lr=1.0e-3 valid_every=375
further+=(losses.envelope=1.0 lr_end=1.0e-6)
train_first third effifusion_gan_open "${further[@]}" seed=3 steps=500 lr=7.0e-4 valid_every=250
further+=(losses.snr=0.8 losses.perceptual=0.4 losses.residual=0.3 ema=0.995 lr=8.0e-4)
train_first fourth effifusion_gan_open "${further[@]}" seed=11 steps=1200 valid_every=600
further+=(mixing.clean_only=0.04)
train_first fifth effifusion_gan_open "${further[@]}" seed=12 steps=1500 valid_every=750
train_first sixth effifusion_gan_open "${further[@]}" seed=13 steps=1700 valid_every=850
train_first seventh effifusion_gan_open "${further[@]}" seed=14 steps=1800 valid_every=900
run_stages "${further[@]}" teacher.model=dpcrn_cf seed=15 steps=1900 valid_every=950
