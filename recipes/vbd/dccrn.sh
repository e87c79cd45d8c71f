#!/usr/bin/env bash
# DCCRN on VoiceBank+DEMAND: 3.67 M parameters, 8.5 GMAC/s, 62.5 ms latency. Published: PESQ-WB 2.54, elsewhere 2.68.
#
#   bash recipes/vbd/dccrn.sh                          set up, and run all stages on the embedded corpus
#   bash recipes/vbd/dccrn.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=dccrn
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd dccrn "$@"

mini_set='steps=20'
run_stages
