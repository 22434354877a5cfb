"""Matrix products as networks need them: precisions, quantised inference, layer shapes.

Imports `ouigemm` and no other room; `bench` and chapters may import it.
"""
