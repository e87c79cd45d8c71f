se-quant --print-completion fish | source
