#!/usr/bin/env bash
# RESULTS.html: what the best included models do to five recordings, to listen to. The recordings are those of examples.tsv, whose
# licences allow to pass them on: 3 s of each, from pairs that validation uses.
#
#   bash recipes/open/examples.sh --pairs DIR    a data directory with noisy.scp and clean.scp that hold the ids of examples.tsv
pairs=  # data directory of the pairs
examples=recipes/open/examples.tsv  # id of each recording, and the sources to credit
models='fspen dpcrn_cf'  # included models or checkpoints
page=  # page to write; default RESULTS.html
seconds=3  # of each recording
set -euo pipefail
# shellcheck source=recipes/path.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../path.sh"
. "$SETK_ROOT/recipes/utils/parse_options.sh"
CDPATH='' cd -- "$SETK_ROOT"
. recipes/utils/user_paths.sh
user_paths pairs page
user_files examples
user_words models
page=${page:-RESULTS.html}
python=.venv/bin/python
[[ $pairs ]] || { echo "examples.sh: --pairs DIR is missing" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for role in noisy clean; do
    while IFS=$'\t' read -r id _; do
        path=$(awk -v id="$id" '$1 == id {print $2}' "$pairs/$role.scp")
        [[ $path ]] || { echo "examples.sh: $pairs/$role.scp has no $id" >&2; exit 2; }
        "$python" -P -c 'import sys, soundfile
x, rate = soundfile.read(sys.argv[1], dtype="int16")
soundfile.write(sys.argv[2], x[:round(float(sys.argv[3]) * rate)], rate)' "$path" "$work/$role-$id.flac" "$seconds"
        echo "$id $work/$role-$id.flac"
    done < <(tail -n +2 "$examples") > "$work/$role.scp"
done
systems=()
for model in $models; do
    name=$(basename "$model" .pt)
    se-enhance "$model" --list "$work/noisy.scp" --out "$work/$name" > "$work/$name.scp"
    se-score --ref "$work/clean.scp" "$work/$name.scp" --metrics pesq_wb,stoi,si_sdr > "$work/$name.tsv"
    systems+=("$name=$work/$name.tsv,$work/$name.scp")
done
se-score --compare "${systems[@]}" --noisy "$work/noisy.scp" --ref "$work/clean.scp" --html "$page"
# Attribution licences ask for the credit beside the sound.
"$python" -P - "$examples" "$page" <<'EOF'
import csv, html, sys
from pathlib import Path

with open(sys.argv[1], encoding="utf-8") as f:
    rows = csv.DictReader(f, delimiter="\t")
    credits = "".join(html.escape("{id}: speech: {speech}; noise: {noise}, {credit}".format(**row)).join(("<li>", "</li>")) for row in rows)
page = Path(sys.argv[2])
page.write_text(page.read_text("utf-8").replace("</main>", f"<h2>Sources</h2><ul>{credits}</ul></main>"), "utf-8")
EOF
