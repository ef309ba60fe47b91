"""Time models on several runtimes; what `ray job submit` runs.

    ray job submit --working-dir . -- python jobs/bench.py --config jobs/bench.yaml --output-folder DIR

The same as `raylib bench`: every flag of it works here, over the YAML file.
"""

import sys

from raylib.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
