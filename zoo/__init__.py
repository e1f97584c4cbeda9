"""FiftyOne model zoo source: `foz.register_zoo_model_source("https://github.com/yoloseg/fiftyone")`.

FiftyOne copies this folder and imports it under a name that worker processes do not know, so all that works is in the installed package.
"""

import json
from pathlib import Path

from fiftyone.operators import types


def download_model(model_name, model_path):
    """There are no weights to download: FiftyOne only wants to find a file."""
    Path(model_path).write_text(json.dumps({"model": model_name, "weights": "load_zoo_model(..., checkpoint=...)"}), encoding="utf-8")


def load_model(model_name, model_path, checkpoint=None, **settings):
    """checkpoint: path of a .pt or of an exported artifact. settings: conf, imgsz, device, ... as for prediction."""
    from fiftyone_yoloseg import as_fiftyone
    from fiftyone_yoloseg.errors import SettingsError

    if not checkpoint:
        raise SettingsError(
            f"{model_name}: give checkpoint=, the path of your best.pt or of an exported model; no weights come with this zoo model"
        )
    return as_fiftyone(checkpoint, **settings)


def resolve_input(model_name, ctx):
    """What FiftyOne's operator for zoo models asks for."""
    inputs = types.Object()
    inputs.str("checkpoint", required=True, label="Checkpoint", description="Path of a best.pt, or of an exported model")
    inputs.float("conf", default=0.25, label="Confidence", description="Least confidence of an object")
    return types.Property(inputs)
