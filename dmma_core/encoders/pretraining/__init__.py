"""Pre-training of the tiny encoders in the package, on rendered clips."""
