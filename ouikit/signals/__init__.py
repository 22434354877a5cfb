"""What is read off activation patterns and what it predicts.

Imports the root modules of `ouikit` only; `fl`, `rl` and chapters may import it.
"""
