"""``line-audit app``: single images and the results of runs in the browser. Nothing leaves the machine."""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it in many places, some on import
