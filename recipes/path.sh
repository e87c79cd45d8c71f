# shellcheck shell=bash
# Sourced by every recipe, from whatever directory it is run in.
SETK_ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
export SETK_ROOT

case :$PATH: in
    *:"$SETK_ROOT/bin:$SETK_ROOT/recipes/utils":*) ;;
    *) export PATH=$SETK_ROOT/bin:$SETK_ROOT/recipes/utils:$PATH ;;
esac

# Lists are sorted as bytes, in every tool alike.
export LC_ALL=C
export PYTHONUNBUFFERED=1
# Jobs run beside each other; threads within each would fight over the same cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
