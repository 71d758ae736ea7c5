"""Files on disks and in buckets: media, weights, checkpoints, metrics, leases."""
