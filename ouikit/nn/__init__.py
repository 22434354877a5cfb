"""Networks by name (`ouikit.nn.models.build`), their initialisation, and modules whose gates are frozen.

Imports the root modules of `ouikit` only; `fl`, `rl`, `bench` and chapters may import it.
"""
