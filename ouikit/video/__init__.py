"""HEVC streams: real ones to work on, what their headers say down to the bytes of each row, and decoders.

Imports the root modules of `ouikit` only; `bench` and chapters may import it. PyAV is imported here only:
`pip install 'ouikit[video]'`.
"""
