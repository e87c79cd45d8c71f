#!/usr/bin/env bash
# EffiFusion-GAN on VoiceBank+DEMAND: 1.08 M parameters, 21.3 GMAC/s on 2 s, not causal. Paper: PESQ-WB 3.45. Models of its
# family are chosen on the test set; here two speakers are held out for validation. data/mini trains the small preset.
#
#   bash recipes/vbd/effifusion_gan.sh                          set up, and run all stages on the embedded corpus
#   bash recipes/vbd/effifusion_gan.sh --root /data/VBD --nj 16 use the paper's corpus (unpacked 48 kHz zips); SETK_CMD=slurm: on a cluster
conf=effifusion_gan
prune='--method structured --amount 0.5 --importance taylor'  # options of se-prune in stage 3; empty: no pruning
tune='steps=27000 lr=1e-4 pruning.keep=true'  # settings of the training after that, on top of the config
STAGES='0 prepare, 1 shards, 2 train, 3 prune and train on, 4 enhance, 5 score, 6 count and RESULTS.md'
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd effifusion_gan "$@"

mini_set='steps=20 preset=effifusion_gan-small batch=2'
[[ $label != mini ]] || tune='steps=5 pruning.keep=true'
run_stages
