"""The labeling loop with the model: `prelabel` -> a person looks and edits -> `accept` or `reject` -> ground truth.

Pending objects wait in a field of their own ("review"); rejected ones are kept in another ("review_rejected"), so that nothing is ever lost and
the model does not propose them again. No function here changes or removes a label of the ground truth.
"""

from __future__ import annotations

from .annotate import annotate
from .decide import Conflict, Decision, accept, reject
from .prelabel import PrelabelReport, prelabel
from .status import ReviewStatus, mark, status

__all__ = ["Conflict", "Decision", "PrelabelReport", "ReviewStatus", "accept", "annotate", "mark", "prelabel", "reject", "status"]
