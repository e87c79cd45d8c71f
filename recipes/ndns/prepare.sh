#!/usr/bin/env bash
# The corpus of the Intel N-DNS Challenge to data directories and shards. With --clean and --noise, the sets are first
# synthesized in the root; each source file is used in one set only.
#
#   bash recipes/ndns/prepare.sh                           prepare a small generated tree
#   bash recipes/ndns/prepare.sh --root /data/NDNS --nj 16 prepare training_set and the others; SETK_CMD=slurm: as array jobs
#   bash recipes/ndns/prepare.sh --root NEW --clean DNS/clean --noise DNS/noise --nj 64
clean=  # folder of clean speech to synthesize the sets from
noise=  # folder of noise
clips=60000,60000,60000  # clips to synthesize for training, validation and test
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" ndns prepare "$@"

run_stages
