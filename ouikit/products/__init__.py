"""Matrix products as networks need them: precisions, quantised inference, layer shapes. Imports `ouigemm`."""
