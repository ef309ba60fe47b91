"""Turn your own files into vectors; what `ray job submit` runs.

    ray job submit --working-dir . -- python jobs/encode.py --config jobs/encode.yaml --input DIR --output DIR

The same as `raylib encode`: every flag of it works here, over the YAML file.
"""

import sys

from raylib.cli import main

if __name__ == "__main__":
    sys.exit(main(["encode", *sys.argv[1:]]))
