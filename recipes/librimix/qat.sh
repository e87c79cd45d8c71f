#!/usr/bin/env bash
# Plain quantization-aware training of Conv-TasNet on Libri2Mix: 8 bits, observed ranges.
# It starts from the float model of conv_tasnet.sh, which is trained first if there is none. It ends with the integer file, as fqse.sh does.
#
#   bash recipes/librimix/qat.sh                          run all stages on the embedded corpus, with the small preset
#   bash recipes/librimix/qat.sh --root /data/L2M --nj 16 use the paper's corpus; SETK_CMD=slurm: on a cluster
conf=qat
float=  # experiment of conv_tasnet.sh, whose best model this one starts from; default next to dir
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" librimix qat "$@"

mini_set='steps=60 preset=conv_tasnet-small quantization.observe=20'
init_from conv_tasnet "$float"
run_stages
by_snr "float, here=$float/enhanced.tsv" "FQSE, here=${dir%qat}fqse/enhanced.tsv" "**vanilla QAT, here**=$dir/enhanced.tsv"
