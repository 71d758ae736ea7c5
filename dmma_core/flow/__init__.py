"""Flow matching: path, loss, solvers and guidance, for any velocity function."""
