"""Export a checkpoint for use elsewhere, compared with the torch model on images of a view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ExportSettings, parse
from ..data.images import read_image
from ..errors import ExportError, UserError
from ..types import ProgressFn
from .models import as_checkpoint
from .views import check_view

if TYPE_CHECKING:
    from ..export import ExportReport

_IMAGES = 4


def export(model: Any, view: Any = None, *, progress: ProgressFn | None = None, **settings: Any) -> ExportReport:
    """Export a checkpoint, a YOLO or a path of one. view: samples whose images the comparison uses; noise if None.

    settings: see `ExportSettings`. Raises UserError.
    """
    from .. import export as exporting

    wanted = parse(ExportSettings, settings)
    checkpoint = as_checkpoint(model)
    if checkpoint is None:
        raise ExportError(f"model={model!r}: is exported already; give its checkpoint (.pt)")
    images = []
    if view is not None:
        check_view(view)
        for file in view.limit(4 * _IMAGES).values("filepath"):
            try:
                images.append(read_image(Path(file)))
            except UserError:
                continue  # the comparison needs some images, not this one
            if len(images) == _IMAGES:
                break
    return exporting.export(checkpoint, wanted, images or None, progress)
