"""Manifests, feature sets, batches, and rendered clips."""
