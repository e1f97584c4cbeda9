"""Which samples an operator works on."""

from __future__ import annotations

from typing import Any

from ..bridge.views import check_view
from ..errors import DataError
from .forms import Form


def target(ctx: Any, form: Form) -> Any:
    """What the user has chosen in the form (dataset, view, selection), of a grouped dataset its active slice; of dynamic groups all their samples."""
    if not getattr(ctx.view, "_is_dynamic_groups", False):
        return ctx.target_view(require_flat=True)
    ids = ctx.selected
    groups = ctx.view.select(ids) if ids else ctx.view
    flat = groups.flatten()
    if ids and not len(flat):  # one was selected inside of its group
        flat = ctx.view.flatten().select(ids)
    what = "the selected dynamic groups" if ids else "these dynamic groups"
    form.note(
        "groups",
        f"All {len(flat)} samples of {what} are used",
        "FiftyOne cannot offer other targets for such a view: flatten it, or select groups",
    )
    return flat


def open_sample(ctx: Any, form: Form) -> Any:
    """A view of the sample that is open in the App's modal, or else of the one that is selected; of a patch its sample. Raises DataError."""
    found = ctx.current_sample or (ctx.selected[0] if len(ctx.selected) == 1 else None)
    if found is None:
        raise DataError("open a sample, or select one: this works on a single sample")
    if ctx.view._is_patches:
        found = ctx.view[found].sample_id
    dataset = ctx.dataset
    if dataset.media_type == "group":
        dataset = dataset.select_group_slices(dataset[found][dataset.group_field].name)
    view = dataset.select(found)
    check_view(view)
    return view
