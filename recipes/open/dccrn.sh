#!/usr/bin/env bash
# DCCRN on a few hours of open speech and noise, mixed on the fly. fspen.sh describes the corpus.
#
#   bash recipes/open/dccrn.sh --root CORPUS --more CORPUS_MORE
conf=dccrn_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open dccrn "$@"

run_stages
