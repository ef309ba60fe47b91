"""Hidden states of a vision-language model; what `ray job submit` runs.

    ray job submit --working-dir . -- python jobs/extract.py --config jobs/extract.yaml --output-dir DIR

The same as `raylib extract`: every flag of it works here, over the YAML file.
"""

import sys

from raylib.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
