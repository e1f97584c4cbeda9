"""The pinned pictures of a run in the panel: labels beside predictions, an epoch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from fiftyone.operators import types

from ..bridge.run_registry import Run
from ..engine.pinned import pictures_of
from .panel_tabs import ROW, Calls, Data, dropdown, started

NEWEST = "newest"
EPOCH = "runs_tab.pinned.epoch"  # where the browser keeps what the dropdown shows


def pinned_pictures(page: types.Object, data: Data, run: Run, chosen: str, calls: Calls) -> None:
    """Add the picture of the epoch that was chosen (its number, or NEWEST), and what chooses another one."""
    found = pictures_of(run.dir)
    if not found:
        return
    epochs = list(found)
    epoch = epoch_of(epochs, chosen)
    best = run.facts.get("best_epoch")
    page.md("**Pinned pictures**: the same validation images as the training goes on", name="pinned_title")
    row = page.h_stack("pinned", gap=1, componentsProps=ROW)
    choices = {NEWEST: f"Newest: epoch {epochs[-1]}"} | {str(e): f"Epoch {e}" + (", the best" if e == best else "") for e in epochs}
    if chosen not in choices:  # the browser keeps it, and would show nothing
        choices[chosen] = f"Epoch {epoch}, as the picture of {chosen} is not kept"
    dropdown(row, "epoch", "Epoch", choices, chosen, calls["pinned_epoch"])
    for step, title, icon in ((-1, "Earlier", "chevron_left"), (1, "Later", "chevron_right")):
        if (other := turned(epochs, epoch, step)) != epoch:
            row.btn(f"pinned_{step}", title, icon=icon, variant="outlined", on_click=calls["pinned_epoch"], params={"value": str(other)})
    page.img("picture", componentsProps={"image": {"style": {"maxWidth": "100%"}}}, alt_text=f"Labels beside predictions: epoch {epoch}")
    data["picture"] = served(found[epoch], started(run))


def served(path: Path, version: str) -> str:
    """Where the App's server has a file, as seen from the page of a dataset. version: of another one the browser loads the file anew.

    An address, not the picture itself: the App copies all data of a panel into its state, and sends that with each event.
    """
    return "../media?" + urlencode({"filepath": str(path), "version": version})


def epoch_of(epochs: Sequence[int], chosen: str) -> int:
    """The epoch that is meant; of one whose picture was thinned out, the one before it."""
    if not chosen.isdigit():
        return epochs[-1]
    return max((e for e in epochs if e <= int(chosen)), default=epochs[0])


def turned(epochs: Sequence[int], epoch: int, step: int) -> int:
    """The next one with a picture in that direction, or itself at the end."""
    return epochs[min(max(epochs.index(epoch) + step, 0), len(epochs) - 1)]
