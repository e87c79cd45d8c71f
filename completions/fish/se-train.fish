se-train --print-completion fish | source
