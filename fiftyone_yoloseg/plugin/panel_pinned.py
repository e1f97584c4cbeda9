"""The pinned pictures of a run in the panel: labels beside predictions, an epoch at a time."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fiftyone.operators import types

from ..bridge.run_registry import Run
from ..engine.pinned import LARGEST, pictures_of
from .panel_tabs import ROW, Calls, Data, dropdown, started

NEWEST = "newest"


def pinned_pictures(page: types.Object, data: Data, run: Run, state: Mapping[str, Any], calls: Calls, shown: str | None) -> str | None:
    """Add the picture of the epoch that was chosen, the newest if none was, and what chooses another one.

    state: {"epoch": as `turned` gives it, "turn": how often it was changed}. shown: what the browser has already, and need not be sent again. Returns what it has
    then; None without a picture. One picture of at most LARGEST bytes is read and sent.
    """
    found = pictures_of(run.dir)
    if not found:
        return None
    epochs, chosen = list(found), str(state.get("epoch", NEWEST))
    epoch = epoch_of(epochs, chosen)
    best = run.facts.get("best_epoch")
    page.md("**Pinned pictures**: the same validation images as the training goes on", name="pinned_title")
    row = page.h_stack("pinned", gap=1, componentsProps=ROW)
    choices = {NEWEST: f"Newest: epoch {epochs[-1]}"} | {str(e): f"Epoch {e}" + (", the best" if e == best else "") for e in epochs}
    # of a new name at each change: the browser keeps what was typed under a name, and a button has chosen since
    dropdown(row, f"epoch_{state.get('turn', 0)}", "Epoch", choices, NEWEST if chosen == NEWEST else str(epoch), calls["pinned_epoch"])
    for step, title, icon in ((-1, "Earlier", "chevron_left"), (1, "Later", "chevron_right")):
        if (other := turned(epochs, epoch, step)) != epoch:
            row.btn(f"pinned_{step}", title, icon=icon, variant="outlined", on_click=calls["pinned_epoch"], params={"value": str(other)})
    return _picture(page, data, found[epoch], f"picture_{started(run)}_{epoch}", shown)


def epoch_of(epochs: Sequence[int], chosen: str) -> int:
    """The epoch that is meant; of one whose picture was thinned out, the one before it."""
    if not chosen.isdigit():
        return epochs[-1]
    return max((e for e in epochs if e <= int(chosen)), default=epochs[0])


def turned(epochs: Sequence[int], epoch: int, step: int) -> int:
    """The next one with a picture in that direction, or itself at the end."""
    return epochs[min(max(epochs.index(epoch) + step, 0), len(epochs) - 1)]


def _picture(page: types.Object, data: Data, path: Path, name: str, shown: str | None) -> str | None:
    try:
        content = path.read_bytes() if path.stat().st_size <= LARGEST else b""
    except OSError:  # it has been thinned out since
        return None
    if not content:
        page.view("pinned_large", types.Notice(label="This picture is too large to be shown here", description=str(path)))
        return None
    page.img(name, componentsProps={"image": {"style": {"maxWidth": "100%"}}}, alt_text=f"Labels beside predictions: {path.stem}")
    if name != shown:
        data[name] = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    return name
