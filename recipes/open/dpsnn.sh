#!/usr/bin/env bash
# DPSNN, a spiking network, on a few hours of open speech and noise, mixed on the fly: a quarter of an hour on one core.
# fspen.sh describes the corpus.
#
#   bash recipes/open/dpsnn.sh --root CORPUS --more CORPUS_MORE
conf=dpsnn_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open dpsnn "$@"

run_stages
operations
suppression_curve
