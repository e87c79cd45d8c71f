#!/usr/bin/env bash
# Lite-RTSE on a few hours of open speech and noise, mixed on the fly: how the included lite_rtse was trained, in fourteen trainings. The
# loss `hybrid` weighs compressed magnitudes so much that the magnitude residual learns to raise them under the noisy phase, which costs
# STOI and SI-SDR. The later trainings give it less and less weight, the seventh starts from a residual of zero, the eighth adds losses that
# hear the noise that is left, the next two are longer, on segments that continue a recording, and the last four have dpcrn_cf as the
# teacher, on segments that do not. fspen.sh describes the corpus.
#
#   bash recipes/open/lite_rtse.sh --root CORPUS --more CORPUS_MORE
conf=lite_rtse_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open lite_rtse "$@"

further=(optimizer=muon ema=0.99 segment=2.0 losses.envelope=4.0)
train_first first lite_rtse_open
train_first second lite_rtse_open "${further[@]}" losses.snr=1.0 seed=2 steps=200 warmup=30 lr=1.0e-3 valid_every=200
train_first third lite_rtse_open "${further[@]}" losses.snr=1.0 seed=3 steps=150 warmup=5 lr=6.0e-4 valid_every=150
further+=(losses.snr=3.0 warmup=20)
train_first fourth lite_rtse_open "${further[@]}" seed=6 steps=360 lr=1.0e-3 valid_every=180
train_first fifth lite_rtse_open "${further[@]}" losses.hybrid=0.3 seed=7 steps=290 lr=7.0e-4 valid_every=145
further+=(losses.hybrid=0.05 losses.envelope=8.0 lr=6.0e-4)
train_first sixth lite_rtse_open "${further[@]}" seed=8 steps=160 valid_every=160
if [[ ! $own_init ]]; then
    mkdir -p "$dir/log"
    # shellcheck disable=SC2086
    ! due 2 || "${bound[@]}" $cpu_cmd "$dir/log/no_residual.log" se-prune "$init" "$dir/no_residual.pt" --method part --without magnitude-residual
    init=$dir/no_residual.pt
fi
further+=(lr_end=1.0e-6)
train_first seventh lite_rtse_open "${further[@]}" seed=9 steps=320 warmup=10 valid_every=80
further+=(losses.perceptual=1.2 losses.residual=0.6 mixing.high_voice=0.1)
train_first eighth lite_rtse_open "${further[@]}" seed=10 steps=800 valid_every=400
further+=(context=2.0 lr=1.0e-3 'mixing.level=[-60,-12]' mixing.clean_only=0.03)
train_first ninth lite_rtse_open "${further[@]}" seed=62 steps=1500 valid_every=750
further+=(ema=0.995)
train_first tenth lite_rtse_open "${further[@]}" seed=65 steps=1800 valid_every=900
further+=(context=0.0 teacher.model=dpcrn_cf)
train_first eleventh lite_rtse_open "${further[@]}" seed=201 steps=400 valid_every=200
train_first twelfth lite_rtse_open "${further[@]}" lr_end=1.0e-4 seed=203 steps=4000 valid_every=1000
further+=(ema=0.998 steps=4000 valid_every=2000)
train_first thirteenth lite_rtse_open "${further[@]}" seed=205
run_stages "${further[@]}" seed=206
