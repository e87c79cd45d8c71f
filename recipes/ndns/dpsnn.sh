#!/usr/bin/env bash
# DPSNN, a spiking network, on the corpus of the Intel Neuromorphic DNS Challenge: 373 k parameters, 5 ms latency, and its
# operations as measured on the noisy test set.
#
#   bash recipes/ndns/dpsnn.sh                           run all stages on the embedded corpus
#   bash recipes/ndns/dpsnn.sh --root /data/NDNS --nj 16 use the corpus: training_set, validation_set and test_set_1
conf=dpsnn_ndns
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" ndns dpsnn "$@"

run_stages
operations
suppression_curve
