"""Benchmarks: `ouikit bench NAME` runs `ouikit.bench.NAME.run`, whose rows are ratios of one process.

A benchmark's THREADS is the largest number of threads that a row of it uses. May import every room but `lab`;
only chapters import it, for its timing.
"""
