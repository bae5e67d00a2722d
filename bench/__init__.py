"""Benchmarks: what ocgate costs beside the same thing without it, measured in one run.

    bench/run            all of them; refreshes bench/results (some 15 minutes)
    bench/run --quick    all of them, small; below 90 s, results to the screen and build/bench

Plain programs over `ocgate.lab` and the product's own code; nothing in src/ knows of them. Both
sides of a comparison stand at the same time and are measured in turn, so that what the machine
does besides hits both; figures are medians with their spread, and ratios.
"""
