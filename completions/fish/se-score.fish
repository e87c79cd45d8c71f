se-score --print-completion fish | source
