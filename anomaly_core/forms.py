"""What models and bundles are told apart by: words that records hold, without torch, which takes seconds to import."""

from __future__ import annotations

from typing import Literal

# ResNet-50 has its stride in the 3x3 convolution of a block (torchvision's), or in the first 1x1 one (the paper's).
BackboneForm = Literal["v1.5", "v1"]
Precision = Literal["float32", "bfloat16"]
# Two scores are in use, with thresholds of their own: a bundle names the one it was calibrated with.
ScoreName = Literal["top10_mean_224", "top10_mean_28"]

# Cells of a feature map and of an error map, by side.
GRID = 28
