"""Environment of every test: no hub, no Ray authentication, one thread a process. Set before anything is imported."""

import os
import tempfile

_MODULES = tempfile.TemporaryDirectory(prefix="raylib-test-modules-")
"""Where transformers copies the code that comes with a checkpoint: of this process, removed with it."""

for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_MODULES_CACHE": _MODULES.name,
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_memory_monitor_refresh_ms": "0",  # what else runs here must not have a test's workers killed
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ[_name] = _value
os.environ.pop("RAY_ADDRESS", None)
