"""The `yoloseg` command: `yoloseg <command> key=value ...`, or the long form `yoloseg task=segment mode=<command> key=value ...`."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import __version__, config
from .config import Settings, parse
from .errors import SettingsError, UserError

if TYPE_CHECKING:
    from .engine.metrics import Metrics


TASKS = ("segment", "detect", "classify", "pose", "obb")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exits with 0, 1 for an error of the user (one message on stderr), 130 when interrupted."""
    try:
        run(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"yoloseg: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        training = {"train", "mode=train"} & set(sys.argv[1:] if arguments is None else arguments)
        hint = "; the training goes on with: yoloseg train resume=true model=<run folder>/weights/last.pt" if training else ""
        print(f"yoloseg: interrupted{hint}", file=sys.stderr)
        sys.exit(130)


def run(arguments: list[str]) -> None:
    """Parse and execute. Raises UserError."""
    if not arguments or arguments[0] in ("help", "-h", "--help"):
        print(usage(arguments[1] if len(arguments) > 1 else None))
        return
    if arguments[0] in ("version", "-v", "--version"):
        print(__version__)
        return
    command, values = split(arguments)
    if "help" in values:
        print(usage(command))
        return
    model, execute = COMMANDS[command]
    execute(parse(model, values))


def split(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Arguments -> command and settings, which stay text: the settings models convert them."""
    command, values = None, {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals:
            values[key.lstrip("-")] = None if value.lower() in ("none", "null", "") else value
        elif argument in ("-h", "--help"):
            values["help"] = "true"
        elif command is None and argument in TASKS:  # as in `yolo segment train`
            values.setdefault("task", argument)
        elif command is None and not argument.startswith("-"):
            command = argument
        else:
            raise SettingsError(f"{argument!r}: settings are written key=value, as in epochs=50")
    task = values.pop("task", "segment")
    if task != "segment":
        raise SettingsError(f"task={task!r}: this is an instance segmentation tool; the only task is segment")
    mode = values.pop("mode", None)
    if command and mode and command != mode:
        raise SettingsError(f"mode={mode!r} contradicts the command {command!r}: give one of them")
    command = command or mode
    if command is None:
        raise SettingsError(f"which command? One of {', '.join(COMMANDS)}")
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        raise SettingsError(
            f"unknown command {command!r}" + (f": did you mean {near[0]!r}?" if near else f": use one of {', '.join(COMMANDS)}")
        )
    return command, values


def usage(command: str | None = None) -> str:
    """Help text, generated from the settings."""
    if command is None:
        return "\n".join(
            [
                f"fiftyone-yoloseg {__version__}",
                "",
                "  yoloseg <command> key=value ...      or   yoloseg task=segment mode=<command> key=value ...",
                "",
                *(
                    f"  {name:17} {(model.__doc__ or '').strip().splitlines()[0].split(': ', 1)[-1]}"
                    for name, (model, _) in COMMANDS.items()
                ),
                "",
                "  yoloseg help <command> lists its settings.",
            ]
        )
    if command not in COMMANDS:
        split([command])
    lines = [f"yoloseg {command} key=value ..."]
    for name, field in COMMANDS[command][0].model_fields.items():
        default = "required" if field.is_required() else "" if field.default is None else f"[{field.default}]"
        lines.append(f"  {name:16} {field.description} {default}".rstrip())
    return "\n".join(lines)


def _train(settings: config.TrainCommand) -> None:
    from .api import YOLO
    from .console import SPEAKS
    from .engine.summary import resume_command

    result = YOLO(settings.model).train(**_given(settings))
    if not SPEAKS:
        return
    if result.metrics:
        show_metrics(result.metrics)
    print(f"best {result.best}\nlast {result.last}")
    if result.stopped:
        print(f"go on with: {resume_command(result.last)}")


def _val(settings: config.ValCommand) -> None:
    from .api import YOLO

    show_metrics(YOLO(settings.model).val(**_given(settings)))


def _predict(settings: config.PredictCommand) -> None:
    from .api import YOLO
    from .saving import write_predictions

    own = _given(settings, "source", "project", "name", "exist_ok", "save")
    results = YOLO(settings.model).predict(settings.source, stream=True, **own)
    for result in write_predictions(results, settings) if settings.save else results:
        place = result.path if result.frame is None else f"{result.path} frame {result.frame}"
        print(f"{place}: {result.orig_shape[0]}x{result.orig_shape[1]}, {result.summary()}")


def _export(settings: config.ExportCommand) -> None:
    from .api import YOLO

    model, given = YOLO(settings.model), _given(settings)
    if len(settings.formats) == 1 and settings.format != "all":
        print(model.export_report(**given).summary())
        return
    table = model.export_table(**given)
    print(table.text())
    if table.failed:
        sys.exit(1)


def _benchmark(settings: config.BenchmarkCommand) -> None:
    import tempfile
    from contextlib import nullcontext
    from pathlib import Path

    from .api import YOLO

    with nullcontext(settings.output) if settings.output else tempfile.TemporaryDirectory() as folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"output={folder}: must be a folder that can be written ({error.strerror})") from None
        given = {**_given(settings), "format": settings.format, "output": Path(folder)}
        table = YOLO(settings.model).export_table(**given)
    print(table.text())
    if table.failed:
        sys.exit(1)


def _convert(settings: config.ConvertCommand) -> None:
    from .bridge.cli import convert

    print(convert(settings))


def _check(settings: config.CheckCommand) -> None:
    import rich

    if settings.data is None:
        from .bridge.cli import check

        report = check(settings)
    else:
        import psutil

        from .console import progress_bar
        from .data.audit_sources import check_data

        with progress_bar("checking") as progress:
            free = psutil.virtual_memory().available
            report = check_data(settings.data, imgsz=settings.imgsz, remap=settings.remap, free_memory=free, progress=progress)
    rich.print(report.table())
    if report.verdict == "errors":
        sys.exit(1)


def _find_label_errors(settings: config.FindLabelErrorsCommand) -> None:
    from .bridge.cli import find_label_errors

    print(find_label_errors(settings))


def _compare(settings: config.CompareCommand) -> None:
    from .bridge.cli import compare

    print(compare(settings))


def _error_types(settings: config.ErrorTypesCommand) -> None:
    from .bridge.cli import error_types

    print(error_types(settings))


def _review(settings: config.ReviewCommand) -> None:
    from .bridge.cli import review

    print(review(settings))


def _import(settings: config.ImportCommand) -> None:
    from .bridge.cli import import_labels

    print(import_labels(settings))


def _loop(settings: config.LoopCommand) -> None:
    from .bridge.cli import loop

    print(loop(settings))


def _runs(settings: config.RunsCommand) -> None:
    from .bridge.cli import list_runs

    print(list_runs(settings))


def _demo(settings: config.DemoSettings) -> None:
    from .bridge.demo import demo

    demo(settings)


def _doctor(_: config.DoctorCommand) -> None:
    from .doctor import report

    print(json.dumps(report(), indent=2))


def _given(settings: Settings, *leave_out: str) -> dict[str, Any]:
    """The settings that were typed, without those of the command itself."""
    return {k: getattr(settings, k) for k in settings.model_fields_set if k not in ("model", *leave_out)}


def show_metrics(metrics: Metrics) -> None:
    """Print the table of classes."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{metrics.images} images, {metrics.objects} objects; COCO metrics at original resolution", title_justify="left")
    for column in ("class", "objects", "box mAP", "box mAP50", "mask mAP", "mask mAP50", "mask P", "mask R"):
        table.add_column(column, justify="left" if column == "class" else "right")
    box, seg = metrics.box, metrics.seg
    total = (box.map, box.map50, seg.map, seg.map50, seg.precision, seg.recall)
    table.add_row("all", str(metrics.objects), *(f"{v:.3f}" for v in total), end_section=True)
    per_class = (box.maps, box.maps50, seg.maps, seg.maps50, seg.precisions, seg.recalls)
    for index, name in metrics.names.items():
        if metrics.objects_per_class[index]:
            table.add_row(name, str(metrics.objects_per_class[index]), *(f"{values[index]:.3f}" for values in per_class))
    console = Console()
    console.print(table)
    speed = ", ".join(f"{stage} {ms:.1f}" for stage, ms in metrics.speed.items())
    console.print(f"milliseconds an image: {speed}; P and R at confidence {metrics.seg.conf:.2f}")


COMMANDS: dict[str, tuple[type[Settings], Callable[[Any], None]]] = {
    "train": (config.TrainCommand, _train),
    "val": (config.ValCommand, _val),
    "predict": (config.PredictCommand, _predict),
    "export": (config.ExportCommand, _export),
    "benchmark": (config.BenchmarkCommand, _benchmark),
    "convert": (config.ConvertCommand, _convert),
    "check": (config.CheckCommand, _check),
    "find_label_errors": (config.FindLabelErrorsCommand, _find_label_errors),
    "compare": (config.CompareCommand, _compare),
    "error_types": (config.ErrorTypesCommand, _error_types),
    "review": (config.ReviewCommand, _review),
    "import": (config.ImportCommand, _import),
    "loop": (config.LoopCommand, _loop),
    "runs": (config.RunsCommand, _runs),
    "demo": (config.DemoSettings, _demo),
    "doctor": (config.DoctorCommand, _doctor),
}
