#!/usr/bin/env bash
# Lite-RTSE on VoiceBank+DEMAND: 1.56 M parameters, 637 MMAC/s, 32 ms latency. Public re-implementation: PESQ-WB 2.67.
#
#   bash recipes/vbd/lite_rtse.sh                          set up, and run all stages on the embedded corpus
#   bash recipes/vbd/lite_rtse.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=lite_rtse
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd lite_rtse "$@"

mini_set='steps=100'
run_stages
