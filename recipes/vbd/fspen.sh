#!/usr/bin/env bash
# FSPEN on VoiceBank+DEMAND: 86 k parameters, 72.5 MMAC/s, 32 ms latency. Paper: PESQ-WB 2.97 with 79 k parameters.
#
#   bash recipes/vbd/fspen.sh                          set up, and run all stages on the embedded corpus: two minutes
#   bash recipes/vbd/fspen.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=fspen
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd fspen "$@"

run_stages
