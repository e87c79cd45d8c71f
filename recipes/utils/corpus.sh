# shellcheck shell=bash
# shellcheck disable=SC2154
# Sourced by recipe.sh: what is particular to a corpus. prepare_CORPUS turns the corpus on disk into data directories.

# Means of the noisy test set as published, for se-score --expect.
noisy_means() {
    case $CORPUS in
        vbd) echo pesq_wb=1.965:1.975,stoi=0.9205:0.9215,si_sdr=8.4:8.5 ;;
        *) echo "${0##*/}: --noisy-gate true: no published means of the noisy test set of $CORPUS are known; use false" >&2; exit 2 ;;
    esac
}

# The metrics of the tables that papers on the corpus have, as far as they can be computed here.
paper_metrics() {
    local names
    case $CORPUS in
        vbd) names=pesq_wb,csig,cbak,covl,ssnr,stoi,estoi,si_sdr,dnsmos_sig,dnsmos_bak,dnsmos_ovrl ;;
        open) names=pesq_wb,csig,cbak,covl,stoi,estoi,si_sdr,dnsmos_sig,dnsmos_bak,dnsmos_ovrl ;;
        *) names=si_sdr,si_sdri,sdr,stoi,estoi,pesq_wb,dnsmos_sig,dnsmos_bak,dnsmos_ovrl ;;
    esac
    se-score --list-metrics | awk -F '\t' -v names="$names" 'NR > 1 && $5 == "here" { here[$1] = 1 }
        END { n = split(names, all, ","); for (i = 1; i <= n; i++) if (all[i] in here) print all[i] }' | paste -sd , -
}

# From a root, or from a generated tree of its layout; data/mini needs no preparation.
prepare() {
    if [[ $root ]]; then
        "prepare_$CORPUS"
    elif [[ $NAME == prepare || $at_rate ]]; then
        local root=$dir/tree clean=$dir/tree/sources/clean noise=$dir/tree/sources/noise clips=4,2,2
        bin/setup
        .venv/bin/python -P data/mini/trees.py "$CORPUS" "$root"
        "prepare_$CORPUS"
    fi
}

prepare_vbd() { by_jobs se-prep vbd "$root" "$data" --rate "$RATE"; }

# From a tree of wavs; or from LibriSpeech, wham_noise and metadata/Libri2Mix, whose mixtures are then computed when read.
prepare_librimix() {
    if [[ -d $root/LibriSpeech ]]; then
        se-prep librimix "$root/metadata/Libri2Mix" "$data" --librispeech "$root/LibriSpeech" --wham "$root/wham_noise" --jobs "$nj"
    else
        se-prep librimix "$root" "$data" --jobs "$nj"
    fi
}

# From a tree, which is synthesized first where the recipe has set clean, noise and clips.
prepare_ndns() {
    if [[ ${clean-} ]]; then
        local synthesize=(se-prep ndns "$root" "$data" --clean "$clean" --noise "$noise" --clips)
        # The sources are split once, before many jobs would each scan all of them.
        "${synthesize[@]}" 0,0,0 --part 1/1
        by_jobs "${synthesize[@]}" "$clips"
    else
        se-prep ndns "$root" "$data" --jobs "$nj"
    fi
}

# The wavs by nj jobs, then the lists by one.
by_jobs() { # PROG ARG…
    # shellcheck disable=SC2086
    "${bound[@]}" $cpu_cmd JOB=1:"$nj" "$dir/log/prepare.JOB.log" "$@" --part JOB/"$nj"
    "$@" --jobs "$nj"
}

# The lists of an open corpus, whose paths are relative to its folder, as data directories with paths that are valid here.
prepare_open() {
    local part kind folder
    for part in valid test; do
        mkdir -p "$data/$part"
        for kind in noisy clean; do
            under "$root" "$root/lists/${part}_$kind.scp" > "$data/$part/$kind.scp"
        done
    done
    mkdir -p "$data/train"
    # Two corpora may use the same id: each id gets the mark of its corpus.
    {
        under "$root" "$root/lists/speech_train.scp" | sed 's/^/a_/'
        [[ ! $more ]] || under "$more" "$more/lists/speech_train.scp" | sed 's/^/b_/'
    } | sort > "$data/train/speech.scp"
    folder=${more:-$root}
    under "$folder" "$folder/lists/noise_train.scp" | sort > "$data/train/noise.scp"
    # Kinds and rooms, where the corpus has them; those of another corpus that was here before go.
    rm -f -- "$data/train/noise2kind" "$data/train/rir.scp"
    [[ ! -e $folder/lists/noise2kind ]] || sort "$folder/lists/noise2kind" > "$data/train/noise2kind"
    [[ ! -s $root/lists/rir_train.scp ]] || under "$root" "$root/lists/rir_train.scp" | sort > "$data/train/rir.scp"
}

# Print LIST with FOLDER in front of each path.
under() { # FOLDER LIST
    awk -v folder="$1/" '{ i = index($0, " "); print substr($0, 1, i) folder substr($0, i + 1) }' "$2"
}
