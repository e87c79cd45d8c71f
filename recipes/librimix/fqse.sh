#!/usr/bin/env bash
# FQSE on Libri2Mix: Conv-TasNet in 8 bits with splitter, residual and learned ranges, 5.03 M parameters, 4.96 GMAC/s.
# It starts from the float model of conv_tasnet.sh, which is trained first if there is none. It ends with the integer file: DIR/fqse.onnx,
# whose scores and bytes are in RESULTS.md, and DIR/fqse.ts. recipes/ablation.sh --paper fqse trains the rows of the paper's ablation:
# float as long, vanilla, and FQSE without augmentation, splitter or residual.
#
#   bash recipes/librimix/fqse.sh                          run all stages on the embedded corpus, with the small preset
#   bash recipes/librimix/fqse.sh --root /data/L2M --nj 16 use the paper's corpus; SETK_CMD=slurm: on a cluster
conf=fqse
float=  # experiment of conv_tasnet.sh, whose best model this one starts from; default next to dir
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" librimix fqse "$@"

mini_set='steps=60 preset=fqse-small quantization.observe=20'
init_from conv_tasnet "$float"
run_stages
by_snr "float, here=$float/enhanced.tsv" "vanilla QAT, here=${dir%fqse}qat/enhanced.tsv" "**FQSE, here**=$dir/enhanced.tsv"
