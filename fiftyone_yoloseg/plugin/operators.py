"""The operators of the App. Each reads a form into the parameters of one job; the jobs are in `bridge.jobs`."""

from __future__ import annotations

import fiftyone.operators as foo

from .compare_operator import Compare
from .curation_operators import FindLabelErrors
from .data_operators import Check, Convert
from .error_types_operator import ErrorTypes
from .evaluate_operator import Evaluate
from .import_operator import ImportLabels
from .model_operators import Export, Predict, Train, Validate
from .review_operators import Review, SelectToLabel
from .run_operators import Loop, LoopStep, ManageRuns
from .sample_operators import AcceptSample, PredictSample, RejectSample

OPERATORS: tuple[type[foo.Operator], ...] = (
    Check, Convert, ImportLabels, Train, Validate, Predict, Evaluate, Compare, ErrorTypes, FindLabelErrors, SelectToLabel, Review, Export,
    ManageRuns, Loop, LoopStep, PredictSample, AcceptSample, RejectSample,
)  # fmt: skip
