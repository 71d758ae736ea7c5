"""What jobs run on Ray workers: one file a stage, with its input, output and size."""
