# shellcheck shell=bash
# Sourced by scripts that have gone from the user's folder to the checkout: what the user named is relative to the user's folder.

# user_paths NAME...: each of these variables is a path.
user_paths() {
    local name
    [[ $OLDPWD != "$PWD" ]] || return 0
    for name; do
        [[ -z ${!name-} || ${!name} == /* ]] || printf -v "$name" %s "$OLDPWD/${!name}"
    done
}

# user_files NAME...: each is a path where there is such a file, and something else otherwise.
user_files() {
    local name
    [[ $OLDPWD != "$PWD" ]] || return 0
    for name; do
        [[ ${!name-} == /* || ! -f $OLDPWD/${!name-} ]] || printf -v "$name" %s "$OLDPWD/${!name}"
    done
}

# user_words NAME: words, each as of user_files.
user_words() {
    local word words=''
    for word in ${!1-}; do
        user_files word
        words+="$word "
    done
    [[ ! -v $1 ]] || printf -v "$1" %s "${words% }"
}

# user_teacher NAME...: words KEY=VALUE; the value of teacher.model is as of user_files.
user_teacher() {
    local name words i teacher
    for name; do
        read -ra words <<< "${!name-}"
        for i in "${!words[@]}"; do
            teacher=${words[i]#teacher.model=}
            [[ $teacher == "${words[i]}" ]] || { user_files teacher; words[i]=teacher.model=$teacher; }
        done
        [[ ! -v $name ]] || printf -v "$name" %s "${words[*]}"
    done
}
