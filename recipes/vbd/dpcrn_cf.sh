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
run_stages
