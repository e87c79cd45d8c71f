se-count --print-completion fish | source
