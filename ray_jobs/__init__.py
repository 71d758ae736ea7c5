"""One thin file per job: render, clean, extract, train, generate, evaluate, compare. `dmma <job>` runs them.

`stages/` holds what jobs run on workers, `common/` what all jobs share, `tools/` the commands around them.
"""
