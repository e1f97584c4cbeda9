"""Where FiftyOne enters the plugin.

The package is used as it is installed; where the repository was only downloaded as a plugin, it is found beside this file.
It is imported under its own name in both cases, never as a part of FiftyOne's plugin module: worker processes must be able
to import it too.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("fiftyone_yoloseg") is None:
    sys.path.append(str(Path(__file__).resolve().parent))

from fiftyone_yoloseg.plugin import register

__all__ = ["register"]
