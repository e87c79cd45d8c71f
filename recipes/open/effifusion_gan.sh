#!/usr/bin/env bash
# EffiFusion-GAN, the small preset, on a few hours of open speech and noise, mixed as training goes; the corpus is described in
# fspen.sh beside it.
#
#   bash recipes/open/effifusion_gan.sh --root CORPUS --more CORPUS_MORE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
more=${OPEN_MORE:-}            # its noises, the longer versions, stand for those of the root
dir=                           # experiment; default exp/open/effifusion_gan, or exp/mini/open_effifusion_gan
data=                          # data directories; default exp/open/data
shards=                        # default exp/open/shards
conf=effifusion_gan_open
set=
init=                          # checkpoint to start from
noisy_gate=false
stage=0
stop_stage=6
nj=2
. recipes/utils/parse_options.sh

mini_steps=20                  # the model is slow
. recipes/utils/corpus.sh open effifusion_gan
paper_rows=
. recipes/utils/stages.sh
