se-enhance --print-completion fish | source
