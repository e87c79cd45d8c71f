#!/usr/bin/env bash
# The included models on the test set of the open corpus, in one table: RESULTS.md, from results/open.
#
#   bash recipes/open/table.sh --root CORPUS                            run everything
#   bash recipes/open/table.sh --root CORPUS --models exp/mine/mine.pt  add a model of your own
#   bash recipes/open/table.sh --stage 4                                write the table only, from the scores in OUT
#
# fspen.sh describes the corpus; only its test lists are used. OUT keeps the scores of every utterance, so that se-score --compare
# can compare a model with the others without running them again.
models=  # space-separated names or files; default all included models
out=  # scores and counts, one folder per model; default results/open
table=  # default RESULTS.md; its picture is next to it
STAGES='1 enhance, 2 score, 3 count and time, 4 write the table'
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open table "$@"

out=${out:-results/open} table=${table:-RESULTS.md}
# The lists of exp/open/data may be those of two corpora.
[[ $data != exp/open/data ]] || data=$dir/data
test=$data/test
metrics=pesq_wb,stoi,estoi,si_sdr,csig,cbak,covl
# DNSMOS if its model files are installed: those of the package speechmos.
if "$python" -P -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("speechmos"))'; then
    metrics+=,dnsmos_sig,dnsmos_bak,dnsmos_ovrl
fi

score() { # LIST DIR
    mkdir -p "$2"
    score_list "$1" "$2/scores" --metrics $metrics
}

if ((stage < 4)); then
    [[ $root ]] || { echo "table.sh: --root CORPUS is missing" >&2; exit 2; }
    prepare
    read -ra names <<< "${models:-$(se-enhance --list-models | cut -f1 | tr '\n' ' ')}"
    ! due 2 || score "$test/noisy.scp" "$out/noisy"
fi
for model in ${names[@]+"${names[@]}"}; do
    name=$(basename "$model" .pt)
    wavs=$dir/$name
    if due 1; then
        # A model of that name may have changed since the last run.
        rm -rf -- "$wavs/enhanced"
        enhance_list "$model" "$wavs"
    fi
    ! due 2 || score "$wavs/enhanced.scp" "$out/$name"
    if due 3; then
        se-count "$model" --json > "$out/$name/count.json"
        se-count "$model" --json --convention ptflops > "$out/$name/count.ptflops.json"
        # Of a model that is included in both forms the ONNX file is what runs.
        [[ ! -e setk/pretrained/$name.onnx ]] || se-count "setk/pretrained/$name.onnx" --json > "$out/$name/export.json"
        se-count "$model" --json --time > "$out/$name/time.json"
        spikes=$(se-count "$model" --json --list "$test/noisy.scp")
        [[ $spikes == *'"synops_per_second": null'* ]] || echo "$spikes" > "$out/$name/spikes.json"
        grep -m1 "model name" /proc/cpuinfo | cut -d: -f2- > "$out/machine"
    fi
done
if due 2 && ((stage < 4)); then
    "$python" -P recipes/open/conditions.py "$test/noisy.scp" "$test/clean.scp" recipes/open/pairs.tsv "$out" ${names[@]+"${names[@]}"}
fi
if due 4; then
    "$python" recipes/open/table.py "$out" "${table%.md}.png" > "$table.tmp"
    mv "$table.tmp" "$table"
    cat "$table"
fi
