"""Models of hardware that is absent. What they compute is exact; what they say of time is simulated.

Imports numpy only; `bench` and chapters may import it.
"""
