#!/usr/bin/env bash
# DPSNN, a spiking network, on VoiceBank+DEMAND: 373 k parameters, 148 MMAC/s if it were dense, 5 ms latency. It is validated
# on p226 and p287; the published training chose its model on the test set, in segments: --set config.segment_reset=1.0.
#
#   bash recipes/vbd/dpsnn.sh                          set up, and run all stages on the embedded corpus
#   bash recipes/vbd/dpsnn.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=dpsnn
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd dpsnn "$@"

run_stages
operations
suppression_curve
