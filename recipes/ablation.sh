#!/usr/bin/env bash
# What the parts of a model contribute: variants of it, each trained with the same settings, on the same examples and for as many steps. The
# first variant of a paper in recipes/ablations.tsv is the one that the others are compared with.
#
#   bash recipes/ablation.sh --paper fqse                                           the embedded corpus
#   bash recipes/ablation.sh --paper fspen --root /data/VBD --seeds '1 2'           the grid of P paths by D blocks, two seeds each
#   bash recipes/ablation.sh --paper fspen --root /data/VBD --only 'P8_D3 P1_D1'    these variants alone
#   bash recipes/ablation.sh --paper fspen --stop-stage 0                           count the costs of all variants
#   bash recipes/ablation.sh --paper fspen --corpus open --root CORPUS --more MORE  another corpus
#
# Scores are of the validation set, as no choice may rest on the test set; --score-on test is for a table next to a paper's. The scores
# of every pair are DIR/VARIANT/seedN/enhanced.tsv. DIR/ablation.md has paired differences with intervals, and a sentence that they support.
conf=
paper=fspen  # a paper of recipes/ablations.tsv
corpus=  # vbd, librimix, ndns or open; default that of the paper
float=  # with variants that start from another recipe's model: its experiment; default next to DIR
only=  # space-separated names of variants; default all of the paper
seeds=1  # space-separated seeds; every variant is trained with each
score_on=valid  # valid or test
time=false  # true: measure the time of a hop of every variant on this machine, for the table
variants=recipes/ablations.tsv  # table of variants; yours may have other rows
STAGES='0 prepare and count costs, 1 shards, 2 train, 4 enhance, 5 score, 6 ablation.md'
# The corpus decides which options there are. The command line has priority over a config, as in parse_options.sh.
for ((_i = 1; _i < $#; _i++)); do
    _value=$((_i + 1)) _value=${!_value}
    # shellcheck disable=SC1090
    case ${!_i} in
        --config) [[ ! -r $_value ]] || eval "$(. "$(readlink -f -- "$_value")" > /dev/null; declare -p paper corpus)" ;;
        --paper) _paper=$_value ;;
        --corpus) _corpus=$_value ;;
    esac
done
paper=${_paper-$paper} corpus=${_corpus-$corpus}
case $paper in
    fqse) corpus=${corpus:-librimix} ;;
    *) corpus=${corpus:-vbd} ;;
esac
[[ -d $(dirname "$0")/$corpus ]] || { echo "ablation.sh: --corpus $corpus: choose vbd, librimix, ndns or open" >&2; exit 2; }
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/utils/recipe.sh" "$corpus" ablation "$@"

[[ $score_on == valid || $score_on == test ]] || { echo "ablation.sh: --score-on $score_on: choose valid or test" >&2; exit 2; }
[[ $seeds =~ ^[0-9]+( [0-9]+)*$ && -z $(tr ' ' '\n' <<< "$seeds" | sort | uniq -d) ]] ||
    { echo "ablation.sh: --seeds '$seeds': write different whole numbers with spaces between" >&2; exit 2; }
[[ $dir != exp/*/ablation && $dir != exp/mini/*_ablation ]] || dir+=/$paper
mkdir -p "$dir/log"

# The chosen variants, the base first; a base that an earlier run has trained is in the table too.
base='' names=() configs=() inits=() changes=()
while IFS=$'\t' read -r of name config begin change; do
    [[ $of == "$paper" ]] || continue
    base=${base:-$name}
    [[ ! $only || " $only " == *" $name "* || ($name == "$base" && -e $dir/$base/seed${seeds%% *}/enhanced.tsv) ]] || continue
    names+=("$name") configs+=("$config") inits+=("$begin") changes+=("$change")
done < <(sed 1d "$variants")
if ((${#names[@]} == 0)); then
    known=$(awk -F '\t' -v paper="$paper" 'NR > 1 && $1 == paper { print $2 }' "$variants" | paste -sd ' ' -)
    echo "ablation.sh: --paper $paper --only '$only': no such variant; ${known:-papers are $(awk -F '\t' 'NR > 1 { print $1 }' "$variants" | uniq | paste -sd ' ' -)}" >&2
    exit 2
fi

# Settings that suit the embedded corpus: enough steps to see every stage work.
case $paper in
    fqse) mini_set='steps=12 preset=fqse-small quantization.observe=4 valid_every=12' ;;
    effifusion_gan) mini_set='steps=2 valid_every=2 preset=effifusion_gan-small batch=2' ;;
    *) mini_set='steps=6 valid_every=6 batch=2' ;;
esac

own_conf=$conf own_init=$init mini_all=$mini_set
config_of() { # CONFIG
    if [[ $own_conf ]]; then
        echo "$own_conf"
    elif [[ $CORPUS == open ]]; then
        echo "$1_open"
    else
        echo "$1"
    fi
}

# Sets `words` to the settings of variant I, and `mini_set` to those of data/mini that suit it; - is none.
settings_of() {
    read -ra words <<< "${changes[$1]#-}"
    mini_set=$mini_all
    [[ " ${words[*]} " != *' quantization=null '* ]] || mini_set=${mini_all/quantization.observe=4/}
}

if due 0; then
    costs=()
    for i in "${!names[@]}"; do
        settings_of "$i"
        training_settings "${words[@]}"
        "$python" -P recipes/utils/resolved.py "$(config_of "${configs[i]}")" '' "${settings[@]#--set=}" > "$dir/${names[i]}.yaml"
        costs+=("$dir/${names[i]}.yaml")
    done
    to.sh "$dir/cost.tsv" se-count "${costs[@]}"
    cat "$dir/cost.tsv"
    prepare_stage
fi
! due 1 || shard_stage
[[ $score_on == test ]] || test=$valid

for i in "${!names[@]}"; do
    for seed in $seeds; do
        at=$dir/${names[i]}/seed$seed
        [[ ! $only || " $only " == *" ${names[i]} "* ]] || continue
        init='' conf=$(config_of "${configs[i]}")
        if [[ ${inits[i]} != - ]]; then
            init=$own_init
            init_from "${inits[i]}" "${float:-exp/$label/$([[ $label != mini ]] || echo "${CORPUS}_")${inits[i]}}"
        fi
        settings_of "$i"
        NAME=$paper part "$at" 2 5 "${words[@]}" "seed=$seed"
    done
done

if due 6; then
    systems=()
    for i in "${!names[@]}"; do
        tables=() counted=$dir/${names[i]}/seed${seeds%% *}
        for seed in $seeds; do
            tables+=("$dir/${names[i]}/seed$seed/enhanced.tsv")
        done
        dir=$counted NAME=$paper test=$test count_model
        ! $time || to.sh "$counted/time.json" se-count "$counted/$paper.onnx" --json --time
        [[ ! -e $counted/time.json ]] || tables+=("$counted/time.json")
        systems+=("${names[i]}=$(IFS=,; echo "${tables[*]}"),$counted/count.json,$counted/export.json")
    done
    # A variant alone has nothing to be compared with.
    against=()
    [[ " ${names[*]} " != *" $base "* ]] || against=(--against "$base")
    {
        echo "# $paper: what its parts contribute ($label)"
        echo
        if [[ $label == mini ]]; then
            echo '**Label mini: the embedded corpus, a few steps of training. The table shows that all stages run. It shows nothing about the parts.**'
            echo
        fi
        se-score --table md "${systems[@]}" "${against[@]}"
        echo
        echo "$(wc -l < "$test/clean.scp") pairs of the $score_on set; seeds: $seeds. Differences are over pairs, with their 95 % interval and p of"
        echo "Wilcoxon's signed-rank test. An interval does not hold what another seed would change."
        echo
        "$python" -P recipes/utils/supported.py "$(metrics_of "${tables[0]}")" "$base" "${systems[@]}"
    } > "$dir/ablation.md.tmp"
    mv "$dir/ablation.md.tmp" "$dir/ablation.md"
    cat "$dir/ablation.md"
fi
