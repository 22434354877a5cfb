"""Callbacks of Lightning and Transformers for the indicators and OUIDecay, and DeepXDE; a module per library.

Each module imports its library at once, so none of them is imported here:
`pip install 'ouikit[integrations,pde]'`. Nothing in `ouikit` imports this room.
"""
