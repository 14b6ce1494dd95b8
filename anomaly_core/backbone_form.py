"""The form of a ResNet-50, apart from the network: settings that name it are read by processes that never compute."""

from __future__ import annotations

from typing import Literal

# Where a bottleneck's stride is: in its 3x3 convolution (torchvision), or in its first 1x1 (Caffe, He et al. 2015).
BackboneForm = Literal["v1.5", "v1"]
