#!/usr/bin/env bash
# Lite-RTSE on VoiceBank+DEMAND: 1.56 M parameters, 637 MMAC/s, 32 ms latency. Public re-implementation: PESQ-WB 2.67.
#
#   bash recipes/vbd/lite_rtse.sh                          set up, and run all stages on the embedded corpus
#   bash recipes/vbd/lite_rtse.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=lite_rtse
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd lite_rtse "$@"

mini_set='steps=100'
published='| DCCRN (via S-DCCRN) | 3.7 M | | 11.13 G | 2.54 | 0.938 | | |
| Lite-RTSE (public re-implementation) | 1.56 M | | 0.66 G | 2.67 | 0.936 | | 18.4 |
| DPCRN-CF (arXiv 2306.00812) | 0.43 M | | 0.30 G | 3.18 | 0.948 | | 18.4 |'
run_stages
