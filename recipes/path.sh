# shellcheck shell=bash
# Sourced by every recipe, whatever the current folder is; also from an interactive bash or zsh.
if [ -n "${BASH_VERSION-}" ]; then
    SETK_ROOT=${BASH_SOURCE[0]}
elif [ -n "${ZSH_VERSION-}" ]; then
    eval 'SETK_ROOT=${(%):-%x}'
else
    echo "recipes/path.sh: needs bash or zsh; start bash first" >&2
    return 2
fi
SETK_ROOT=$(CDPATH='' cd -- "$(dirname -- "$SETK_ROOT")/.." && pwd -P)
export SETK_ROOT

case :$PATH: in
    *:"$SETK_ROOT/bin:$SETK_ROOT/recipes/utils":*) ;;
    *) export PATH=$SETK_ROOT/bin:$SETK_ROOT/recipes/utils:$PATH ;;
esac

# Every tool sorts lists as bytes.
export LC_ALL=C
export PYTHONUNBUFFERED=1
# Jobs run in parallel. Threads in each of them would compete for the same cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
