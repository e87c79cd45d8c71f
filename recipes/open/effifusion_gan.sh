#!/usr/bin/env bash
# EffiFusion-GAN, the small preset, on a few hours of open speech and noise, mixed on the fly. fspen.sh describes the corpus.
#
#   bash recipes/open/effifusion_gan.sh --root CORPUS --more CORPUS_MORE
conf=effifusion_gan_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open effifusion_gan "$@"

mini_set='steps=20'
run_stages
