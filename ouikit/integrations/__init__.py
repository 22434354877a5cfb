"""The indicators and OUIDecay in other people's training loops, one module per library.

Each module imports its library at once, so none of them is imported here:
`pip install 'ouikit[integrations]'`.
"""
