#!/usr/bin/env bash
# Conv-TasNet, the small preset, on a few hours of open speech and noise, mixed on the fly: half an hour on one core. fqse.sh
# quantizes it. fspen.sh describes the corpus.
#
#   bash recipes/open/conv_tasnet.sh --root CORPUS --more CORPUS_MORE
conf=conv_tasnet_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open conv_tasnet "$@"

mini_set='steps=80'
run_stages
by_snr "float=$dir/enhanced.tsv"
