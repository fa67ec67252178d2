"""What measures on a device: the standard library and numpy only.

The same code times files in this process and, packed into one file by `zipapp`, on a board. So it
imports nothing else of the project, by relative imports only, and runs on Python 3.9.
"""
