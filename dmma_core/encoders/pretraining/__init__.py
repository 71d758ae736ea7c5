"""How the tiny encoders that come with DMMA are trained, on rendered clips."""
