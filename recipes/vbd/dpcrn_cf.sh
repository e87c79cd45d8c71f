#!/usr/bin/env bash
# DPCRN-CF (a reconstruction) on VoiceBank+DEMAND: 427 k parameters, 321 MMAC/s, 48 ms latency. The figures of the paper
# (PESQ-WB 3.18) are those of its own network, whose sizes are not public.
#
#   bash recipes/vbd/dpcrn_cf.sh                          set up, and run all stages on the embedded corpus
#   bash recipes/vbd/dpcrn_cf.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=dpcrn_cf
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd dpcrn_cf "$@"

mini_set='steps=200'
shown='dpcrn_cf (a reconstruction)'
published='| DCCRN (via S-DCCRN) | 3.7 M | | 11.13 G | 2.54 | 0.938 | | |
| Lite-RTSE (public re-implementation) | 1.56 M | | 0.66 G | 2.67 | 0.936 | | 18.4 |
| DPCRN-CF (arXiv 2306.00812; the network here is a reconstruction) | 0.43 M | | 0.30 G | 3.18 | 0.948 | | 18.4 |'
run_stages
