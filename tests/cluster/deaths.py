"""How a worker dies; code in text, for what travels by value."""

DIE_ONCE = """
import os
try:
    os.close(os.open({path!r}, os.O_CREAT | os.O_EXCL))
except FileExistsError:
    pass
else:
    os.kill(os.getpid(), 9)
"""
"""Of the processes that run it, the first dies. path: a file that tells the others."""
