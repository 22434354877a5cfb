"""Matrix products as networks need them: precisions, quantised inference, shapes, generators, emulation.

Imports `ouigemm`, and `nn` for its blocks; `bench` and chapters may import it. Only `generators` imports TVM.
"""
