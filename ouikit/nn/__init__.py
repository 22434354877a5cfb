"""Networks and gated modules."""
