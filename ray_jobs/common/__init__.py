"""What all jobs share: the command line, the connection to Ray, the training driver, MLflow."""
