"""Probes over hidden states; what `ray job submit` runs.

    ray job submit --working-dir . -- python jobs/probe.py output --config jobs/probe.yaml --output-dir DIR

The same as `raylib probe`: every flag of it works here, over the YAML file.
"""

import sys

from raylib.cli import main

if __name__ == "__main__":
    sys.exit(main(["probe", *sys.argv[1:]]))
