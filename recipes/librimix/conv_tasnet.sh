#!/usr/bin/env bash
# Conv-TasNet on Libri2Mix (mix_single, min, 16 kHz): 5.00 M parameters, 4.91 GMAC/s; not causal. qat.sh and fqse.sh
# quantize it. --init also accepts a checkpoint of asteroid that se-quant import has converted.
#
#   bash recipes/librimix/conv_tasnet.sh                          run all stages on the embedded corpus, with the small preset
#   bash recipes/librimix/conv_tasnet.sh --root /data/L2M --nj 16 use the paper's corpus; SETK_CMD=slurm: on a cluster
conf=conv_tasnet
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" librimix conv_tasnet "$@"

mini_set='steps=80 preset=conv_tasnet-small'
run_stages
by_snr "float, here=$dir/enhanced.tsv"
