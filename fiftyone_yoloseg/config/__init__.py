"""Every setting of the product, once: the Python API, the command line, the App's forms and checkpoints all read these models.

A field's description is its documentation. Unknown keys are errors that name the nearest known one.
"""

from .analysis import CompareCommand, ErrorTypesCommand, ReviewCommand
from .commands import (
    BenchmarkCommand,
    CheckCommand,
    ConvertCommand,
    DemoSettings,
    DoctorCommand,
    ExportCommand,
    FindLabelErrorsCommand,
    ImportCommand,
    LoopCommand,
    PredictCommand,
    RunsCommand,
    TrainCommand,
    ValCommand,
)
from .data import CheckSettings, ConvertSettings, ImportSettings, LabelErrorSettings
from .export import ExportSettings
from .parsing import parse, problems
from .settings import DecodeSettings, DeviceSettings, PredictSettings, Settings, TrainSettings, ValSettings
from .values import AUTO_BATCH, MOST_PINNED, STRIDE

__all__ = [
    "AUTO_BATCH",
    "MOST_PINNED",
    "STRIDE",
    "BenchmarkCommand",
    "CheckCommand",
    "CheckSettings",
    "CompareCommand",
    "ConvertCommand",
    "ConvertSettings",
    "DecodeSettings",
    "DemoSettings",
    "DeviceSettings",
    "DoctorCommand",
    "ErrorTypesCommand",
    "ExportCommand",
    "ExportSettings",
    "FindLabelErrorsCommand",
    "ImportCommand",
    "ImportSettings",
    "LabelErrorSettings",
    "LoopCommand",
    "PredictCommand",
    "PredictSettings",
    "ReviewCommand",
    "RunsCommand",
    "Settings",
    "TrainCommand",
    "TrainSettings",
    "ValCommand",
    "ValSettings",
    "parse",
    "problems",
]
