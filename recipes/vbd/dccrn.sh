#!/usr/bin/env bash
# DCCRN on VoiceBank+DEMAND: 3.67 M parameters, 8.5 GMAC/s, 62.5 ms latency. Published: PESQ-WB 2.54, elsewhere 2.68.
#
#   bash recipes/vbd/dccrn.sh                          set up, and run all stages on the embedded corpus
#   bash recipes/vbd/dccrn.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=dccrn
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd dccrn "$@"

mini_set='steps=20'
published='| DCCRN (via S-DCCRN; its cost, by the legacy count, via Zheng et al. 2023) | 3.7 M | | 11.13 G | 2.54 | 0.938 | | |
| Lite-RTSE (public re-implementation) | 1.56 M | | 0.66 G | 2.67 | 0.936 | | 18.4 |
| DPCRN-CF (arXiv 2306.00812) | 0.43 M | | 0.30 G | 3.18 | 0.948 | | 18.4 |'
run_stages
