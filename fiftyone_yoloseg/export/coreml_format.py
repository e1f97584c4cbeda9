"""Export to Core ML: the network once more in Core ML's own operations (MIL), as an ML package or, for older systems, a .mlmodel.

Input: `image`, RGB, of the size of the export: what Vision and Xcode's previews ask for. The network's 1/255 is inside. Outputs: `output0` and
`output1` as in all formats, float32. Boxes are decoded in float32 also with half, because float16 cannot tell half pixels apart beyond 1024.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import ExportSettings
from ..nn.head import MASKS, REG_MAX, STRIDES, make_anchors
from ..nn.model import YOLOv8Seg
from ..runtime.coreml_backend import INPUT, load_coremltools
from .base import Exporter, ExportJob, StandIn, Unverified
from .mirror import Features, features

DECODE = "decode_"
"""Start of the names of all operations after the convolutions: they stay in float32."""


class MilOps:
    """`mirror.Ops` for MIL: every call adds an operation to the program that is being built."""

    def __init__(self, builder: Any) -> None:
        self.mb = builder

    def _weights(self, weight: Tensor, bias: Tensor | None) -> dict[str, Any]:
        values = {"weight": weight, "bias": bias}
        return {name: value.detach().cpu().numpy() for name, value in values.items() if value is not None}

    def conv(self, name: str, x: Any, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Any:
        place = {"strides": [stride] * 2, "pad_type": "custom", "pad": [padding] * 4}
        return self.mb.conv(x=x, **self._weights(weight, bias), **place, name=_plain(name))

    def conv_transpose(self, name: str, x: Any, weight: Tensor, bias: Tensor | None, stride: int) -> Any:
        return self.mb.conv_transpose(x=x, **self._weights(weight, bias), strides=[stride] * 2, pad_type="valid", name=_plain(name))

    def silu(self, name: str, x: Any) -> Any:
        return self.mb.mul(x=x, y=self.mb.sigmoid(x=x, name=_plain(f"{name}.sigmoid")), name=_plain(name))

    def add(self, name: str, x: Any, y: Any) -> Any:
        return self.mb.add(x=x, y=y, name=_plain(name))

    def concat(self, name: str, parts: Sequence[Any]) -> Any:
        return self.mb.concat(values=list(parts), axis=1, name=_plain(name))

    def halves(self, name: str, x: Any, channels: int) -> tuple[Any, Any]:
        first, second = self.mb.split(x=x, split_sizes=[channels, channels], axis=1, name=_plain(name))
        return first, second

    def max_pool(self, name: str, x: Any, kernel: int, padding: int) -> Any:
        place = {"kernel_sizes": [kernel] * 2, "strides": [1, 1], "pad_type": "custom", "pad": [padding] * 4}
        return self.mb.max_pool(x=x, **place, name=_plain(name))

    def upsample(self, name: str, x: Any) -> Any:
        return self.mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=2, name=_plain(name))


class CoreMLExporter(Exporter):
    suffix = ".mlpackage"

    def ending(self, settings: ExportSettings) -> str:
        """.mlmodel, the older kind of file, if `output` is named so."""
        return ".mlmodel" if _old(settings) else self.suffix

    def write(self, job: ExportJob, path: Path) -> None:
        ct = load_coremltools()
        old = _old(job.settings)
        options: dict[str, Any] = (
            {"convert_to": "neuralnetwork"} if old else {"convert_to": "mlprogram", **_precision(ct, job.settings.half)}
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ct.convert(
                _program(ct, job, old),
                source="milinternal",
                inputs=[ct.ImageType(INPUT, shape=(1, 3, *job.info.imgsz), scale=1 / 255, color_layout=ct.colorlayout.RGB)],
                skip_model_load=True,
                **options,
            )
            model = _smaller(ct, model, job.settings, old)
        model.user_defined_metadata.update(job.metadata)
        model.short_description = job.metadata["description"]
        model.author, model.version = job.metadata["author"], job.metadata["version"]
        model.save(str(path))

    def unverified(self, settings: ExportSettings) -> Unverified | None:
        if sys.platform == "darwin":
            return None
        return Unverified(
            "Core ML runs on Apple's systems only, so the file was not run by Apple's runtime, on its GPU or its Neural Engine",
            f"On a Mac, pip install 'fiftyone-yoloseg[coreml]' and export there, which compares it: yoloseg export model=best.pt "
            f"format=coreml; or validate this file there: yoloseg val model=best{self.ending(settings)} data=dataset.yaml",
        )

    def stand_in(self, job: ExportJob, path: Path) -> StandIn:
        from .coreml_interpreter import InterpretedCoreML

        return StandIn(InterpretedCoreML(path), "the saved program over its saved weights, interpreted with torch")


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _old(settings: ExportSettings) -> bool:
    return settings.output is not None and settings.output.suffix == ".mlmodel"


def _precision(ct: Any, half: bool) -> dict[str, Any]:
    if not half:
        return {"compute_precision": ct.precision.FLOAT32}
    return {"compute_precision": ct.transform.FP16ComputePrecision(op_selector=lambda op: not op.name.startswith((DECODE, "output")))}


def _program(ct: Any, job: ExportJob, old: bool) -> Any:
    from coremltools.converters.mil import Builder as mb  # type: ignore[import-untyped, unused-ignore]

    ops = MilOps(mb)

    # macOS 12, iOS 15; the older kind: macOS 10.15, iOS 13
    target = ct.target.iOS13 if old else ct.target.iOS15

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, *job.info.imgsz))], opset_version=target)  # type: ignore[untyped-decorator]
    def program(image: Any) -> tuple[Any, Any]:  # the argument's name is the input's
        found = features(job.net, ops, image)
        return _decode(mb, job.net, found, job.info.imgsz), mb.identity(x=found.protos, name="output1")

    return program


def _decode(mb: Any, net: YOLOv8Seg, found: Features[Any], imgsz: tuple[int, int]) -> Any:
    """Everything after the head's convolutions, up to output0. See SegmentationHead.decode."""
    centres, strides = make_anchors([(imgsz[0] // s, imgsz[1] // s) for s in STRIDES], torch.device("cpu"))

    def join(name: str, levels: list[Any], channels: int) -> Any:
        flat = [mb.reshape(x=x, shape=[1, channels, -1], name=f"{DECODE}{name}_{s}") for s, x in zip(STRIDES, levels, strict=True)]
        return mb.concat(values=flat, axis=2, name=f"{DECODE}{name}")

    bins = mb.reshape(x=join("bins", found.boxes, 4 * REG_MAX), shape=[1, 4, REG_MAX, -1], name=f"{DECODE}sides")
    shares = mb.softmax(x=mb.transpose(x=bins, perm=[0, 2, 1, 3], name=f"{DECODE}transpose"), axis=1, name=f"{DECODE}softmax")
    mean = mb.conv(x=shares, weight=net.head.dfl.conv.weight.detach().numpy(), name=f"{DECODE}mean")
    sides = mb.reshape(x=mean, shape=[1, 4, -1], name=f"{DECODE}distances")
    pixels = mb.mul(x=sides, y=strides.T[None].numpy().astype(np.float32), name=f"{DECODE}pixels")
    left_top, right_bottom = mb.split(x=pixels, split_sizes=[2, 2], axis=1, name=f"{DECODE}split")
    shift = mb.mul(x=mb.sub(x=right_bottom, y=left_top, name=f"{DECODE}difference"), y=np.float32(0.5), name=f"{DECODE}shift")
    centre = mb.add(x=shift, y=centres.T[None].numpy(), name=f"{DECODE}centre")
    size = mb.add(x=left_top, y=right_bottom, name=f"{DECODE}size")
    scores = mb.sigmoid(x=join("logits", found.scores, net.nc), name=f"{DECODE}scores")
    coefficients = join("coefficients", found.coefficients, MASKS)
    return mb.concat(values=[centre, size, scores, coefficients], axis=1, name="output0")


def _smaller(ct: Any, model: Any, settings: ExportSettings, old: bool) -> Any:
    """The model with the convolutions' weights in 16 or 8 bits; half of an ML program was chosen when it was converted."""
    if old and (settings.half or settings.int8):
        from coremltools.models.neural_network.quantization_utils import QuantizedLayerSelector, quantize_weights  # type: ignore[import-untyped, unused-ignore]

        class Selector(QuantizedLayerSelector):  # type: ignore[misc, unused-ignore]
            def do_quantize(self, layer: Any, weight_param: str | None = None) -> bool:
                return layer.WhichOneof("layer") == "convolution" and not layer.name.startswith(DECODE) and weight_param != "bias"

        small = quantize_weights(model, 16 if settings.half else 8, selector=Selector())  # a model on a Mac, its specification elsewhere
        return small if isinstance(small, ct.models.MLModel) else ct.models.MLModel(small, skip_model_load=True)
    if settings.int8:
        import coremltools.optimize.coreml as cto  # type: ignore[import-untyped, unused-ignore]

        # not all constants: in 8 bits, the anchors of a 640 px input would be 5 px apart
        bits = cto.OpLinearQuantizerConfig(mode="linear_symmetric")
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(op_type_configs={"conv": bits, "conv_transpose": bits}))
    return model


exporter = CoreMLExporter()
