# shellcheck shell=bash
# Sourced after a script has set its variables: each lower-case variable foo_bar that is set is an option --foo-bar VALUE. One
# that holds true or false accepts only these values. --config FILE is a shell file of such settings; it is read first, so that
# the command line has priority. --help prints $help_message. The arguments after the options stay in "$@".

_po_die() {
    echo "${0##*/}: $1" >&2
    exit 2
}

_po_list() {
    compgen -v | grep -E '^[a-z][A-Za-z0-9_]*$' | grep -vx help_message
}

_po_unknown() { # WHAT NAME: report a name that is not an option, with the nearest option
    local near names
    mapfile -t names < <(_po_list)
    near=$(python3 -I -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' \
        "$2" "${names[@]}" 2>/dev/null) || near=
    if [[ $near ]]; then
        _po_die "$1; did you mean --${near//_/-}?"
    fi
    names=("${names[@]//_/-}")
    _po_die "$1; the options are: ${names[*]/#/--}"
}

_po_args=("$@")
for ((_po_i = 0; _po_i < $#; _po_i += 2)); do
    case ${_po_args[_po_i]} in
        --help | -h)
            if [[ ${help_message-} ]]; then
                printf '%s\n' "$help_message"
            else
                echo "usage: ${0##*/} [options]; the options and their values now:"
                while read -r _po_name; do
                    printf '  --%s %s\n' "${_po_name//_/-}" "${!_po_name@Q}"
                done < <(_po_list)
            fi
            exit 0
            ;;
        --config)
            _po_file=${_po_args[_po_i + 1]-}
            [[ -f $_po_file && -r $_po_file ]] || _po_die "--config '$_po_file': no such file to read"
            # Without a slash, "source" would look along PATH first.
            [[ $_po_file == */* ]] || _po_file=./$_po_file
            _po_flags=()
            mapfile -t _po_before < <(_po_list)
            for _po_name in "${_po_before[@]}"; do
                [[ ${!_po_name-} != true && ${!_po_name-} != false ]] || _po_flags+=("$_po_name")
            done
            # shellcheck disable=SC1090
            source "$_po_file"
            while read -r _po_name; do
                [[ " ${_po_before[*]} " == *" $_po_name "* ]] ||
                    { unset -v "$_po_name" && _po_unknown "$_po_file sets $_po_name, which is not an option" "$_po_name"; }
            done < <(_po_list)
            for _po_name in "${_po_flags[@]}"; do
                [[ ${!_po_name} == true || ${!_po_name} == false ]] ||
                    _po_die "$_po_file: $_po_name must be true or false, not '${!_po_name}'"
            done
            ;;
        --*=* | --) break ;;
        --*) ;;
        *) break ;;
    esac
done

while (($# > 0)); do
    case $1 in
        --)
            shift
            break
            ;;
        --*=*) _po_die "$1: write it as two words: ${1%%=*} '${1#*=}'" ;;
        --*)
            _po_name=${1#--}
            _po_name=${_po_name//-/_}
            # With this pattern, PATH, HOME and words that cannot be names are not options.
            [[ $_po_name == config ]] ||
                { [[ $_po_name =~ ^[a-z][A-Za-z0-9_]*$ && $_po_name != help_message ]] && [[ -v $_po_name ]]; } ||
                _po_unknown "unknown option $1" "$_po_name"
            # "--nj --stage 2" lacks the value of --nj; "--train-args '--lr 1e-3 --seed 2'" is intended.
            [[ $# -ge 2 && ! ${2-} =~ ^--[^[:space:]]*$ ]] ||
                _po_die "$1 needs a value${2+ and found $2; if that is the value, put a space before it: \" $2\"}"
            if [[ ${!_po_name-} == true || ${!_po_name-} == false ]] && [[ $2 != true && $2 != false ]]; then
                _po_die "$1 must be true or false, not '$2'"
            fi
            # An empty launcher would run "JOB=1:4" as a program.
            [[ $2 || ! $_po_name =~ (^|_)cmd$ || ! ${!_po_name-} ]] || _po_die "$1 must not be empty; give a launcher such as run.sh"
            [[ $_po_name == config && ! -v config ]] || printf -v "$_po_name" %s "$2"
            shift 2
            ;;
        *) break ;;
    esac
done

unset -v "${!_po_@}"
unset -f _po_die _po_list _po_unknown
