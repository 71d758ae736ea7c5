"""Names of the solvers; apart from them so that reading a configuration does not load torch."""

METHODS = ("euler", "midpoint", "heun", "adaptive")
