se-prune --print-completion fish | source
