"""The laboratory: runs, records, sweeps, claims and pages. Knows no torch."""
