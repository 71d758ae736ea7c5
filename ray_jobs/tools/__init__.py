"""Commands around the jobs: the MLflow UI, weights, the check of a machine, late uploads of metrics."""
