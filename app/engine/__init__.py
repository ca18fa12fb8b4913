"""Turn waveforms into transcripts; independent of HTTP, and the only user of faster-whisper."""

import os

# onnxruntime, which runs faster-whisper's speech detection, reports each process and each model it
# loads to its vendor, and stores a machine identifier for that, unless this is set before the
# import (also on Linux since version 1.32). The model hub's client has a similar switch.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
