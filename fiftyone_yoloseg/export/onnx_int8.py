"""ONNX in 8 bits: the convolutions compute in integers, calibrated on real inputs; all that comes after the head's convolutions stays float.

Boxes in pixels and probabilities share one tensor, so that with everything in integers a step is several pixels wide and no probability is left.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor

FLOAT_NODES = ("dfl.conv",)
"""Convolutions that are no layers: the mean of a distribution over bins."""


def quantize(source: Path, target: Path, calibration: Sequence[Tensor], batch: int, *, tensorrt: bool = False) -> None:
    """Read a float model, write it with quantised convolutions. batch: of the graph's input, if it is static.

    tensorrt: signed integers around zero, and biases in float: it reads nothing else.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static  # type: ignore[import-untyped, unused-ignore]

    logging.getLogger().disabled, before = True, logging.getLogger().disabled  # it advises on every call to run its own preprocessing
    try:
        quantize_static(
            str(source),
            str(target),
            _reader(calibration, batch),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8 if tensorrt else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=list(FLOAT_NODES),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False} if tensorrt else {},
        )
    finally:
        logging.getLogger().disabled = before
    float_model, model = onnx.load(source), onnx.load(target)
    del model.metadata_props[:]
    model.metadata_props.extend(float_model.metadata_props)
    onnx.save_model(model, str(target))


def _reader(calibration: Sequence[Tensor], batch: int) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.inputs = self._inputs()

        def _inputs(self) -> Iterator[dict[str, Any]]:
            for tensor in calibration:
                yield {"images": tensor.expand(batch, -1, -1, -1).contiguous().numpy()}

        def get_next(self) -> dict[str, Any] | None:
            return next(self.inputs, None)

    return Reader()
