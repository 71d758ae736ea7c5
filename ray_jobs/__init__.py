"""One thin file per job: clean, extract, train, generate, evaluate, compare. `dmma <job>` runs them."""
