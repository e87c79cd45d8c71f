#!/usr/bin/env bash
# GTCRN on VoiceBank+DEMAND: 23.7 k parameters, 26.3 MMAC/s, 32 ms latency. Paper: PESQ-WB 2.87.
#
#   bash recipes/vbd/gtcrn.sh                          set up, and run all stages on the embedded corpus
#   bash recipes/vbd/gtcrn.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=gtcrn
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd gtcrn "$@"

mini_set='steps=150'
run_stages
