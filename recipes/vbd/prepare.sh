#!/usr/bin/env bash
# VoiceBank+DEMAND to data directories at 16 kHz, and shards: the first stages of the recipes in this folder.
#
#   bash recipes/vbd/prepare.sh                          prepare a small generated tree
#   bash recipes/vbd/prepare.sh --root /data/VBD --nj 16 prepare the corpus (unpacked 48 kHz zips); SETK_CMD=slurm: as array jobs
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd prepare "$@"

run_stages
