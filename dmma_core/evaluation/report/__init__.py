"""The report a person reads: one HTML file with everything embedded, which opens from disk without a network."""
