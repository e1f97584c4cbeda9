"""Exported PaddlePaddle models in Paddle Inference, on the CPU."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, MissingDependencyError
from ..nn.head import MASKS
from ..types import RawOutput
from .artifact import damaged, last_line, mismatched, only_cpu
from .metadata import check_shape, decode

KIND = "PaddlePaddle"
PROGRAM = "model"
"""Name of the two files without their endings .json (the program) and .pdiparams (the weights)."""
METADATA_FILE = "metadata.json"


class PaddleBackend:
    """Runs an artifact of export(format="paddle"). Raises CheckpointError if the folder is anything else or damaged."""

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None) -> None:
        if importlib.util.find_spec("paddle") is None:
            raise MissingDependencyError("paddlepaddle", "running a PaddlePaddle model", "paddle")
        self.path, self.device = path, only_cpu(device, KIND)
        self.info = decode(_read_json(path, METADATA_FILE), path)
        self.predictor = _predictor(path, threads or torch.get_num_threads())
        if self.predictor.get_input_names() != ["images"] or len(self.predictor.get_output_names()) != 2:
            raise mismatched(path)

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """See types.Backend. Raises SettingsError for a shape that a static artifact does not take."""
        check_shape(self.info, images)
        self.predictor.get_input_handle("images").copy_from_cpu(images.cpu().contiguous().numpy())
        self.predictor.run()
        pred, protos = (self.predictor.get_output_handle(name).copy_to_cpu() for name in self.predictor.get_output_names())
        if pred.shape[1] != 4 + len(self.info.names) + MASKS:
            raise mismatched(self.path, "outputs")
        return RawOutput(torch.from_numpy(pred), torch.from_numpy(protos))


def load_paddle() -> Any:
    """The module, quiet."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("paddle")


def _read_json(path: Path, name: str) -> Any:
    try:
        return json.loads((path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: {name} is missing; export it again") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {name} is truncated or damaged ({error}); export it again") from None


def _predictor(path: Path, threads: int) -> Any:
    program, weights = path / f"{PROGRAM}.json", path / f"{PROGRAM}.pdiparams"
    _read_json(path, program.name)  # Paddle ends the process for one that is cut off
    if not weights.is_file():
        raise CheckpointError(f"{path}: {weights.name} is missing; export it again")
    inference = load_paddle().inference
    config = inference.Config(str(program), str(weights))
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(threads)
    try:
        return inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError) as error:
        raise damaged(path, KIND, last_line(error)) from None
