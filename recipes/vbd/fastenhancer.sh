#!/usr/bin/env bash
# FastEnhancer-T on VoiceBank+DEMAND: 22 k parameters, 59.8 MMAC/s, 32 ms latency. Paper: PESQ-WB 2.99.
#
#   bash recipes/vbd/fastenhancer.sh                          set up, and run all stages on the embedded corpus
#   bash recipes/vbd/fastenhancer.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
#
# Other sizes: --set preset=fastenhancer-b or fastenhancer-s.
conf=fastenhancer
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd fastenhancer "$@"

run_stages
