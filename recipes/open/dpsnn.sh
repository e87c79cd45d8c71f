#!/usr/bin/env bash
# DPSNN, a spiking network, on a few hours of open speech and noise, mixed on the fly: how the included dpsnn was trained. The first
# training leaves most recurrent neurons silent; the loss `dormant` of the others wakes them. From the fourth on envelopes weigh more. The
# seventh starts from the mean of the two before, and is averaged with it: in that mean no neuron is silent. Then the least used neurons
# get time constants of up to one second (slow_neurons.py), first of the readout and then of the recurrent layer, and learn what to do with them.
# What is included is the mean of the last two trainings.
# fspen.sh describes the corpus.
#
#   bash recipes/open/dpsnn.sh --root CORPUS --more CORPUS_MORE
conf=dpsnn_open
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open dpsnn "$@"

mini_set='steps=100'
awake=(ema=0.99 losses.envelope=2.0 losses.compressed_magnitude=0.5 losses.spikes=1.0e-4 losses.readout=1.0e-4 losses.dormant=0.5)
train_first first dpsnn_open
train_first second dpsnn_open "${awake[@]}" seed=3 steps=600 warmup=50 lr=2.0e-3 lr_end=2.0e-5 valid_every=600
train_first third dpsnn_open "${awake[@]}" seed=4 steps=300 warmup=20 lr=1.0e-3 lr_end=1.0e-5 losses.snr=2.0 valid_every=300
awake+=(ema=0.999 lr_end=1.0e-5)
train_first fourth dpsnn_open "${awake[@]}" losses.envelope=4.0 seed=5 segment=1.5 steps=3600 lr=3.0e-3 valid_every=1200
awake+=(segment=2.0)
train_first fifth dpsnn_open "${awake[@]}" losses.envelope=8.0 seed=6 steps=2200 lr=2.0e-3 valid_every=1100
awake+=(losses.envelope=16.0)
train_first sixth dpsnn_open "${awake[@]}" seed=8 steps=1400 lr=2.0e-3 valid_every=700
if [[ ! $own_init ]]; then
    init=$dir/fifth/best.pt
    average_into "$dir/mean" "$dir/sixth/best.pt"
fi
train_first seventh dpsnn_open "${awake[@]}" losses.dormant=4.0 ema=0.99 seed=9 steps=240 warmup=10 lr=4.0e-4 lr_end=1.0e-6 valid_every=240
if [[ ! $own_init ]]; then
    init=$dir/mean/best.pt
    average_into "$dir/awake" "$dir/seventh/best.pt"
fi

slow() { # LAYER COUNT SECONDS: give the least used neurons of a layer time constants of up to SECONDS
    [[ ! $own_init ]] || return 0
    mkdir -p "$dir/log"
    # shellcheck disable=SC2086
    ! due 2 || "${bound[@]}" $cpu_cmd "$dir/log/slow_$1.log" "$python" -P recipes/open/slow_neurons.py "$init" "$dir/slow_$1.pt" "$@"
    init=$dir/slow_$1.pt
}

awake+=(losses.envelope=8.0 lr=2.0e-3 warmup=50)
slow readout 96 1.0
train_first eighth dpsnn_open "${awake[@]}" ema=0.99 seed=31 steps=800 valid_every=400
slow adaptive 80 0.1
train_first ninth dpsnn_open "${awake[@]}" ema=0.99 seed=32 steps=800 valid_every=400
awake+=(mixing.clean_only=0.04)
train_first tenth dpsnn_open "${awake[@]}" seed=33 steps=4000 valid_every=1000
run_averaged 1 "${awake[@]}" context=2.0 losses.residual=0.3 seed=34 steps=3000 valid_every=1500
operations
suppression_curve
