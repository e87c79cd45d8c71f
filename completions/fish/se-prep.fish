se-prep --print-completion fish | source
