#!/usr/bin/env bash
# Conv-TasNet, the small preset, on a few hours of open speech and noise, mixed on the fly: how the included conv_tasnet-small was
# trained, 45 minutes on one core. The loss of the first training is of the waveform alone, and leaves STOI below that of the
# input; the second adds the loss `envelope`. fqse.sh quantizes the result. fspen.sh describes the corpus.
#
#   bash recipes/open/conv_tasnet.sh --root CORPUS --more CORPUS_MORE
conf=conv_tasnet_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open conv_tasnet "$@"

mini_set='steps=80'
train_first first conv_tasnet_open
run_stages losses.envelope=4.0 optimizer=muon 'betas=[0.9, 0.99]' ema=0.99 seed=2 steps=1500 lr=1.0e-3 warmup=50 valid_every=500
by_snr "float=$dir/enhanced.tsv"
