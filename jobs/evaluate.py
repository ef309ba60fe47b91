"""Evaluate embedding models; what `ray job submit` runs.

    ray job submit --working-dir . -- python jobs/evaluate.py --config jobs/evaluate.yaml

The same as `raylib evaluate`: every flag of it works here, over the YAML file.
"""

import sys

from raylib.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
