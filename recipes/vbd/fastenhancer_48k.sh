#!/usr/bin/env bash
# FastEnhancer-T on VoiceBank+DEMAND at 48 kHz, the rate of the corpus: 28 k parameters, 21 ms latency. Scores are at 16 kHz.
#
#   bash recipes/vbd/fastenhancer_48k.sh                          set up, and run all stages on a small generated tree
#   bash recipes/vbd/fastenhancer_48k.sh --root /data/VBD --nj 16 use the corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
#
# The larger size: --set preset=fastenhancer-b-48k.
conf=fastenhancer_48k
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd fastenhancer_48k "$@"

run_stages
