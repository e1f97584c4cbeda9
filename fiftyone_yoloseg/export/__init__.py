"""Export of a checkpoint to other runtimes, each artifact compared with the network before anybody gets it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config import ExportSettings
from ..engine.checkpoint import Checkpoint, Stamp, load_checkpoint, save_checkpoint
from ..errors import CheckpointError, DataError, ExportError, MissingDependencyError, SettingsError
from ..types import ProgressFn
from .base import ExportReport
from .place import scratch
from .process import run_alone
from .registry import FORMATS, find_exporter, find_format
from .samples import Samples, from_data
from .table import ExportTable, Row
from .work import check_settings, export_here, prepare
from .work import work as _work

__all__ = ["ExportReport", "ExportTable", "Samples", "any_works", "check_one", "export", "export_all", "export_here", "from_data"]

Stop = Callable[[], bool]


def export(
    checkpoint: Checkpoint,
    settings: ExportSettings,
    samples: Samples | None = None,
    progress: ProgressFn | None = None,
    should_stop: Stop | None = None,
) -> ExportReport:
    """`export_here` in a process of its own, which may crash.  Raises also Stopped, and ExportError if the process was killed."""
    check_one(settings)
    samples = samples or Samples()
    _, path = prepare(checkpoint, settings, samples)
    what = f"export to {find_format(settings.format).title}"
    with scratch(path) as folder:
        file, own = folder / "network.pt", checkpoint
        try:  # the network as it is, which its file may not be any more; with `train` it is stored in float32
            save_checkpoint(file, own.net, names=own.names, imgsz=own.imgsz, train_args={}, origin=own.origin, train={})
        except OSError as error:
            raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error
        work = (folder, path, file, checkpoint.path, checkpoint.stamp, settings, samples, _threads())
        report: ExportReport = run_alone(what, folder, _in_process, *work, progress=progress, should_stop=should_stop)
        return report


def check_one(settings: ExportSettings) -> None:
    """Before any image is read: raise SettingsError or MissingDependencyError for an export to one format that cannot work."""
    if len(settings.formats) > 1 or settings.format == "all":
        raise SettingsError(f"format={settings.format}: one format at a time here; YOLO.export and YOLO.export_table take several")
    check_settings(settings)


def any_works(settings: ExportSettings) -> bool:
    """Whether it is worth reading images: any of the formats is installed and takes these settings. Raises SettingsError for a name that is no format."""
    for name in _names(settings):
        with contextlib.suppress(SettingsError, MissingDependencyError):
            check_settings(settings.model_copy(update={"format": name}))
            return True
    return False


def _names(settings: ExportSettings) -> list[str]:
    names = list(FORMATS) if settings.format == "all" else list(settings.formats)
    for name in names:
        find_format(name)
    return names


def _in_process(
    tell: ProgressFn,
    folder: Path,
    path: Path,
    file: Path,
    own_path: Path | None,
    stamp: Stamp | None,
    settings: ExportSettings,
    samples: Samples,
    threads: int,
) -> ExportReport:
    import torch

    torch.set_num_threads(threads)
    checkpoint = replace(load_checkpoint(file), path=own_path, stamp=stamp)
    return _work(tell, folder, find_exporter(settings.format), path, checkpoint, settings, samples)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def export_all(
    checkpoint: Checkpoint,
    settings: ExportSettings,
    samples: Samples | None = None,
    progress: ProgressFn | None = None,
    should_stop: Stop | None = None,
) -> ExportTable:
    """One export a format of `settings.format` ("all": every format that this version has); one that fails does not lose the others.

    With "all", formats that the settings are not for (half, int8, device, ...) are left out, with the reason.
    Raises SettingsError for a name that is no format, and Stopped.
    """
    everything, names, rows = settings.format == "all", _names(settings), []
    for i, name in enumerate(names):

        def tell(share: float, label: str, i: int = i) -> None:
            if progress:
                progress((i + share) / len(names), label)

        try:
            report = export(checkpoint, settings.model_copy(update={"format": name}), samples, tell, should_stop)
            rows.append(Row(name, report))
            if report.accuracy:
                samples = replace(samples or Samples(), torch_maps=(report.accuracy.torch_box_map, report.accuracy.torch_mask_map))
        except MissingDependencyError as error:
            rows.append(Row(name, None, str(error), missing=True))
        except SettingsError as error:
            rows.append(Row(name, None, str(error), apart=everything))
        except (ExportError, CheckpointError, DataError) as error:
            rows.append(Row(name, None, str(error)))
    return ExportTable(rows)
