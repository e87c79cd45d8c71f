#!/usr/bin/env bash
# FSPEN on VoiceBank+DEMAND: 86 k parameters, 72.5 MMAC/s, 32 ms latency. Paper: PESQ-WB 2.97 with 79 k parameters.
#
#   bash recipes/vbd/fspen.sh                          set up, and run all stages on the embedded corpus: two minutes
#   bash recipes/vbd/fspen.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=fspen
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd fspen "$@"

published='| FSPEN (Yang et al. 2024) | 79 k | | 89 M | 2.97 | 0.942 | | |
| FSPEN (a re-implementation, mean of 5 seeds) | 79 k | 64 M | | 3.00 | 0.942 | 0.850 | 18.4 |'
run_stages
