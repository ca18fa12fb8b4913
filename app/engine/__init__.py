"""From waveforms to transcripts; knows nothing of HTTP, and alone knows faster-whisper."""

import os

# onnxruntime, which finds speech for faster-whisper, reports each process and each model it loads
# to its makers, and keeps an identifier of the machine for it, unless this is set before it is
# loaded (from its version 1.32 on, also on Linux). The model hub's client has such a wish as well.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
