"""The torch network as a prediction backend."""

from __future__ import annotations

import torch

from ..nn.model import YOLOv8Seg, fused
from ..types import ModelInfo, RawOutput


class TorchBackend:
    """Runs the network, batch norms folded, without gradients. half: in half precision (GPU only)."""

    def __init__(self, net: YOLOv8Seg, info: ModelInfo, device: torch.device, half: bool = False) -> None:
        self.info, self.device = info, device
        self.dtype = torch.float16 if half and device.type == "cuda" else torch.float32
        self.net = fused(net).to(device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> RawOutput:
        pred, protos = self.net(images.to(self.device, self.dtype, memory_format=torch.channels_last))
        return RawOutput(pred.float(), protos.float())

    @torch.inference_mode()
    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) RGB float32 in [0, 1] -> what goes into the head: (B, C, H/s, W/s) float32 for each stride s = 8, 16, 32."""
        levels = self.net.neck(*self.net.backbone(images.to(self.device, self.dtype, memory_format=torch.channels_last)))
        return [level.float() for level in levels]

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) RGB float32 in [0, 1] -> (B, D) float32: the `features`, averaged over the input, strides 8, 16, 32 in a row."""
        return torch.cat([level.mean((2, 3)) for level in self.features(images)], 1)
