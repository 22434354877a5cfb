"""Benchmarks of the package: `ouikit bench NAME` runs `ouikit.bench.NAME`."""
