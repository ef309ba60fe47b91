"""Train a retriever; what `ray job submit` runs.

    ray job submit --working-dir . -- python jobs/train.py --config jobs/train.yaml --output-folder FOLDER

The same as `raylib train`: every flag of it works here, over the YAML file. FOLDER must be seen by all workers: shared,
or s3://.
"""

import sys

from raylib.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
