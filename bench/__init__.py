"""Benchmarks: what ocgate costs beside the same thing without it, measured in one run.

    bench/run            all of them; refreshes bench/results (some two hours)
    bench/run --quick    all of them, small; below 90 s, results to the screen and build/bench

    bench/run detection patience probing
                         what is known of exits, and what it costs: an hour and a half, half of it
                         a single look at one slow line; part of "all of them" as well
    python -m bench.record_line
                         lines as the tests of that model are shown them, recorded anew

Plain programs over `lab` and the product's own code; nothing in src/ knows of them. Both
sides of a comparison stand at the same time and are measured in turn, so that what the machine
does besides hits both; figures are medians with their spread, and ratios.
"""
