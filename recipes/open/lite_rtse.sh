#!/usr/bin/env bash
# Lite-RTSE on a few hours of open speech and noise, mixed on the fly: how the included lite_rtse was trained. fspen.sh
# describes the corpus.
#
#   bash recipes/open/lite_rtse.sh --root CORPUS --more CORPUS_MORE
conf=lite_rtse_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open lite_rtse "$@"

run_stages
