"""Hard negatives and batches for training; what `ray job submit` runs.

    ray job submit --working-dir . -- python jobs/mine.py negatives --config jobs/mine-negatives.yaml --output FILE
    ray job submit --working-dir . -- python jobs/mine.py batches --config jobs/mine-batches.yaml --output FILE

The same as `raylib mine`: every flag of it works here, over the YAML file.
"""

import sys

from raylib.cli import main

if __name__ == "__main__":
    sys.exit(main(["mine", *sys.argv[1:]]))
