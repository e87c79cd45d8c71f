#!/usr/bin/env bash
# Conv-TasNet, the small preset, on a few hours of open speech and noise, mixed on the fly: how the included conv_tasnet-small was
# trained, in six trainings, five hours on one core. The loss of the first is of the waveform alone, and leaves STOI below that of the
# input; the second adds the loss `envelope`; the third adds `perceptual` and `residual`, which hear the noise that is left; the others
# are longer, and some of their speech is clean. The fifth was broken off at a high rate, and the last continues from there.
# fqse.sh quantizes the result. fspen.sh describes the corpus.
#
#   bash recipes/open/conv_tasnet.sh --root CORPUS --more CORPUS_MORE
conf=conv_tasnet_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open conv_tasnet "$@"

mini_set='steps=80'
train_first first conv_tasnet_open
further=(losses.envelope=4.0 optimizer=muon 'betas=[0.9, 0.99]' lr=1.0e-3 warmup=50)
train_first second conv_tasnet_open "${further[@]}" ema=0.99 seed=2 steps=1500 valid_every=500
further+=(losses.perceptual=0.5 losses.residual=0.3 segment=2.0)
train_first third conv_tasnet_open "${further[@]}" ema=0.998 seed=3 steps=2400 valid_every=800
further+=(mixing.clean_only=0.04 ema=0.998)
train_first fourth conv_tasnet_open "${further[@]}" seed=5 steps=4400 valid_every=2200
train_first fifth conv_tasnet_open "${further[@]}" seed=7 steps=1250 lr_end=9.4e-4 valid_every=1250
run_stages "${further[@]}" seed=8 steps=4200 valid_every=4200
by_snr "float=$dir/enhanced.tsv"
