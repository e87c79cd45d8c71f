#!/usr/bin/env bash
# EffiFusion-GAN on VoiceBank+DEMAND: 1.08 M parameters, 21.3 GMAC/s on 2 s, not causal. Paper: PESQ-WB 3.45. Its family picks
# checkpoints by the test set; here two speakers are held out for that.
#
#   bash recipes/vbd/effifusion_gan.sh                          the whole chain on the embedded corpus, with the small preset
#   bash recipes/vbd/effifusion_gan.sh --root /data/VBD --nj 16 the paper's corpus (48 kHz zips unpacked)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${VBD_ROOT:-}             # VoiceBank+DEMAND: holds noisy_trainset_28spk_wav and the others; empty: data/mini
dir=                           # experiment; default exp/vbd/effifusion_gan, or exp/mini/effifusion_gan
data=                          # data directories; default exp/vbd/data
shards=                        # default exp/vbd/shards, which the papers share
conf=effifusion_gan
set=                           # space-separated key=value on top of the conf
init=                          # checkpoint to start from
prune='--method structured --amount 0.5 --importance taylor'   # of stage 3, for se-prune; empty: no pruning
tune='steps=27000 lr=1e-4 pruning.keep=true' # what training after that has on top of the conf
noisy_gate=true                # stop unless the noisy test set scores as published
stage=0                        # 0 prepare, 1 shards, 2 train, 3 prune and train on, 4 enhance, 5 score, 6 count and RESULTS.md
stop_stage=6
nj=2                           # parallel jobs of stages 0, 1, 4 and 5
. recipes/utils/parse_options.sh

if [[ ! $root ]]; then         # the model is slow
    mini_steps=20 tune='steps=5 pruning.keep=true'
    set="preset=effifusion_gan-small batch=2 $set"
fi
. recipes/utils/corpus.sh vbd effifusion_gan
paper_rows='| EffiFusion-GAN (Wen & Tan 2025) | 1.08 M | | | 3.45 | | | |'
. recipes/utils/stages.sh
