# bash completion of the se-* commands. Install as a file in bash-completion's folder, or source it.
_setk() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words= values=
    case "${COMP_WORDS[0]##*/} ${COMP_WORDS[1]-}" in
        "se-prep check") words="--rate --jobs --json --allow-commands -q --quiet --print-completion --version --help" ;;
        "se-prep fix") words="--rate --jobs --allow-commands -q --quiet --print-completion --version --help" ;;
        "se-prep get") words="--only -q --quiet --print-completion --version --help" ;;
        "se-prep librimix") words="--mixture --mode --rate --train --root --librispeech --wham --jobs --max-fail -q --quiet --print-completion --version --help" ;;
        "se-prep list") words="-q --quiet --print-completion --version --help" ;;
        "se-prep mix") words="--speech --noise --snr --rir --level --active-level --utt2spk --seed --rate --jobs --part --max-fail --allow-commands -q --quiet --print-completion --version --help" ;;
        "se-prep ndns") words="--clean --noise --clips --group --seed --jobs --part --max-fail -q --quiet --print-completion --version --help" ;;
        "se-prep pairs") words="--max-fail --allow-commands -q --quiet --print-completion --version --help" ;;
        "se-prep resample") words="--rate --resampler --channel --jobs --part --max-fail --allow-commands -q --quiet --print-completion --version --help" ;;
        "se-prep shards") words="--feature --window --hop --bands --shard-size --rate --resampler --jobs --part --allow-commands -q --quiet --print-completion --version --help" ;;
        "se-prep sources") words="--speech --noise --rir --utt2spk --noise2kind -q --quiet --print-completion --version --help" ;;
        "se-prep split") words="--by-speaker --allow-commands -q --quiet --print-completion --version --help" ;;
        "se-prep vbd") words="--valid --jobs --part --resampler --max-fail -q --quiet --print-completion --version --help" ;;
        "se-prep "*) words="check fix get librimix list mix ndns pairs resample shards sources split vbd -q --quiet --print-completion --version --help" ;;
        "se-train "*) words="--train --valid --out --set --init --fresh --dry-run --threads -q --quiet --print-completion --version --help" ;;
        "se-enhance "*) words="--list --out --chunk --limit --raw --rate --channels --subtype --suffix --jobs --batch --part --max-fail --allow-commands --trust --list-models --json -q --quiet --print-completion --version --help" ;;
        "se-score "*) words="--ref --noisy --metrics --list-metrics --dnsmos-model --dnsmos-p808-model --by --bins --expect --table --against --png --compare --verify --rate --tolerance --jobs --part --max-fail --json --jsonl --summary --html --allow-commands -q --quiet --print-completion --version --help" ;;
        "se-count "*) words="--layers --convention --time --list --published-rates --json --trust -q --quiet --print-completion --version --help" ;;
        "se-quant check") words="--list --ref --metrics --min-snr --integer --part --max-fail --json --allow-commands --trust -q --quiet --print-completion --version --help" ;;
        "se-quant export") words="--frames --batch -q --quiet --print-completion --version --help" ;;
        "se-quant import") words="-q --quiet --print-completion --version --help" ;;
        "se-quant ptq") words="--list --method --allow-commands -q --quiet --print-completion --version --help" ;;
        "se-quant "*) words="check export import ptq -q --quiet --print-completion --version --help" ;;
        "se-prune "*) words="--method --amount --target-macs --target-params --floor --importance --multiple --list --ref --metrics --json -q --quiet --print-completion --version --help" ;;
    esac
    case "${COMP_WORDS[0]##*/} ${COMP_WORDS[1]-} $previous" in
        "se-score "*" "--table) values="md tsv json" ;;
        "se-count "*" "--convention) values="setk ptflops legacy" ;;
        "se-quant ptq "--method) values="minmax percentile mse" ;;
        "se-prune "*" "--method) values="magnitude structured" ;;
        "se-prune "*" "--importance) values="l1 l2 taylor" ;;
    esac
    if [[ $values ]]; then COMPREPLY=($(compgen -W "$values" -- "$current"))
    elif [[ $current == -* ]]; then COMPREPLY=($(compgen -W "$words" -- "$current"))
    else COMPREPLY=($(compgen -f -W "$(printf '%s\n' $words | grep -v ^-)" -- "$current")); fi
}
complete -o filenames -F _setk se-prep se-train se-enhance se-score se-count se-quant se-prune
