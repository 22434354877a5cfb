"""The two apps, a client's work, the rounds, and where they run; imports every other room of fl."""
