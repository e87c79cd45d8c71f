#!/usr/bin/env bash
# The models that ship, on the test set of the open corpus, in one table: RESULTS.md, from results/open.
#
#   bash recipes/open/table.sh --root CORPUS                           all of it again
#   bash recipes/open/table.sh --root CORPUS --models exp/mine/mine.pt one more beside them
#   bash recipes/open/table.sh --stage 4                               the table alone, from the scores that are there
#
# The corpus is described in fspen.sh beside it; only its test lists are used. OUT keeps the scores of every utterance, so that a
# model can be compared with those of others (se-score --compare) without running these again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
models=                        # space-separated names or files; default all that ship
dir=                           # enhanced files and logs; default exp/open/table
data=                          # default exp/open/table/data
out=                           # scores and counts, a folder per model; default results/open
table=                         # default RESULTS.md
peers=results/peers.tsv        # public models on the same pairs, for the table
stage=1                        # 1 enhance, 2 score, 3 count and time, 4 write the table
stop_stage=4
nj=2
. recipes/utils/parse_options.sh

data=${data:-$SETK_ROOT/exp/open/table/data}
due() { ((stage <= $1 && stop_stage >= $1)); }
if ((stage < 4)); then
    [[ $root ]] || { echo "table.sh: --root CORPUS is missing" >&2; exit 2; }
    more='' set=''
    . recipes/utils/corpus.sh open table
    prepare
    read -ra names <<< "${models:-$(se-enhance --list-models | cut -f1 | tr '\n' ' ')}"
fi
out=${out:-results/open} table=${table:-RESULTS.md}
metrics=pesq_wb,stoi,estoi,si_sdr,csig,cbak,covl
# DNSMOS where its model files are: those of the package speechmos.
if "$SETK_ROOT/.venv/bin/python" -P -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("speechmos"))'; then
    metrics+=,dnsmos_sig,dnsmos_bak,dnsmos_ovrl
fi

score() { # LIST DIR
    mkdir -p "$2"
    se-score --ref "$test/clean.scp" "$1" --metrics $metrics --jobs "$nj" --summary "$2/scores.json" > "$2/scores.tsv"
}

if due 2; then
    score "$test/noisy.scp" "$out/noisy"
fi
for model in ${names[@]+"${names[@]}"}; do
    name=$(basename "$model" .pt)
    wavs=$dir/$name
    if due 1; then
        # A model by that name may have become another, and nj may have been.
        rm -rf -- "$wavs/wav" "$wavs"/enhanced.*.scp
        # shellcheck disable=SC2086
        $cpu_cmd JOB=1:"$nj" "$wavs/log/enhance.JOB.log" recipes/utils/to.sh "$wavs/enhanced.JOB.scp" \
            se-enhance "$model" --list "$test/noisy.scp" --out "$wavs/wav" --shard JOB/"$nj"
        sort "$wavs"/enhanced.*.scp > "$wavs/enhanced"
    fi
    if due 2; then
        score "$wavs/enhanced" "$out/$name"
    fi
    if due 3; then
        # A model that ships in both forms runs as ONNX, and is timed so.
        runs=setk/pretrained/$name.onnx
        [[ -e $runs ]] || runs=$model
        se-count "$model" --json > "$out/$name/count.json"
        se-count "$model" --json --convention ptflops > "$out/$name/count.ptflops.json"
        se-count "$runs" --json --time > "$out/$name/time.json"
        if [[ $name == dpsnn* ]]; then
            se-count "$model" --json --list "$test/noisy.scp" > "$out/$name/spikes.json"
        fi
        grep -m1 "model name" /proc/cpuinfo | cut -d: -f2- > "$out/machine"
    fi
done
if due 2; then
    "$SETK_ROOT/.venv/bin/python" -P recipes/utils/conditions.py "$test/noisy.scp" "$test/clean.scp" recipes/open/pairs.tsv "$out" \
        ${names[@]+"${names[@]}"}
fi
if due 4; then
    "$SETK_ROOT/.venv/bin/python" recipes/utils/table.py "$out" "${table%.md}.png" "$peers" > "$table.tmp"
    mv "$table.tmp" "$table"
    cat "$table"
fi
