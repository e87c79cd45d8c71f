#!/usr/bin/env bash
# FQSE on a few hours of open speech and noise: the model of conv_tasnet.sh, which is trained first if there is none, in 8 bits;
# how the included fqse-small was trained, 15 minutes on one core. At higher rates the splitter's second plane learns noise. The last
# line is plain quantization-aware training, to compare with.
#
#   bash recipes/open/fqse.sh --root CORPUS --more CORPUS_MORE
#   bash recipes/open/fqse.sh --root CORPUS --more CORPUS_MORE --conf qat_open --dir exp/open/qat
conf=fqse_open
float=  # experiment of conv_tasnet.sh, whose best model this one starts from; default next to dir
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open fqse "$@"

mini_set='steps=60 quantization.observe=20'
init_from conv_tasnet "$float"
run_stages losses.envelope=4.0 losses.perceptual=0.5 losses.residual=0.3 mixing.clean_only=0.04 segment=1.5 seed=7 steps=1000 lr=3.0e-4 lr_end=1.0e-6 valid_every=1000
by_snr "float=$float/enhanced.tsv" "${conf##*/}=$dir/enhanced.tsv"
