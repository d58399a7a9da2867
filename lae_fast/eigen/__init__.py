"""From a second-moment operator S to certified eigenpairs: `solve.top_eigenpairs` and its routes."""
