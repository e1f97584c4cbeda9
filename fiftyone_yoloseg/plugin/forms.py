"""Forms of the operators: fields with defaults and checks, and settings fields generated from the pydantic models.

A form is read twice by the same code: to show it, and to execute. What is wrong is said beside the field.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fiftyone.operators import types

from ..bridge import defaults
from ..bridge.views import LabelField, has_masks, label_fields, label_path
from ..config import Settings, problems
from ..errors import UserError

Check = Callable[[Any], None]
NEW_MODELS = {
    f"yolov8{size}-seg.yaml": f"New YOLOv8{size}-seg, {what}"
    for size, what in zip("nsmlx", ("smallest and fastest", "small", "medium", "large", "largest"), strict=True)
}
A_FILE = "file"
_SYSTEM = {"view_target", "custom_view_target", "target", "advanced"}
_CACHE_SECONDS = 15.0
_BUTTONS = 3  # in a row
COUNTED = 2000
"""Samples whose labels a form counts: it has to open at once, whatever the size of the dataset."""


class Form:
    """Fields by name, the values of the fields, and what is wrong with them."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.inputs = types.Object()
        self.problems: dict[str, str] = {}
        self.known = set(_SYSTEM)

    def get(self, name: str, default: Any = None) -> Any:
        self.known.add(name)
        value = self.params.get(name)
        return default if value is None or value == "" else value

    def refuse(self, message: str, name: str = "problem") -> None:
        """Show that the operator cannot run at all, and why."""
        self.problems[name] = message
        self.inputs.view(name, types.Error(label="This cannot run", description=message), invalid=True, error_message=message)

    def note(self, name: str, label: str, description: str | None = None) -> None:
        self.inputs.view(name, types.Notice(label=label, description=description))

    def markdown(self, name: str, text: str) -> None:
        self.inputs.md(text, name=name)

    def estimate(self, lines: Callable[[], Sequence[str]]) -> None:
        """What the work will take, where nothing in the form is wrong."""
        if not self.problems:
            self.markdown("estimate", "**What it takes**\n" + "".join(f"\n- {line}" for line in lines()))

    def text(
        self, name: str, label: str, description: str, default: str | None = None, check: Check | None = None, required: bool = False
    ) -> Any:
        value = self.get(name, default)
        problem = self._problem(name, value, check, required)
        self.inputs.str(name, label=label, description=description, default=default, required=required and default is None, **problem)
        return value

    def number(self, name: str, label: str, description: str, default: float, check: Check | None = None, whole: bool = False) -> Any:
        value = self.get(name, default)
        problem = self._problem(name, value, check, required=True)
        add = self.inputs.int if whole else self.inputs.float
        add(name, label=label, description=description, default=default, **problem)
        return value

    def flag(self, name: str, label: str, description: str, default: bool = False) -> bool:
        value = bool(self.get(name, default))
        self.inputs.bool(name, label=label, description=description, default=default)
        return value

    def choice(
        self,
        name: str,
        label: str,
        description: str,
        choices: dict[str, str],
        default: str | None,
        check: Check | None = None,
        radio: bool = False,
    ) -> Any:
        """choices: value -> label. A value outside of them, as a script may give, is offered too; `check` judges it."""
        value = self.get(name, default)
        problem = self._problem(name, value, check, required=True)
        if value is not None and value not in choices:
            choices = {**choices, str(value): str(value)}
            if not check:
                self.problems[name] = f"{name}={value!r}: choose one of {', '.join(list(choices)[:-1])}"
                problem = {"invalid": True, "error_message": self.problems[name]}
        view = types.RadioGroup() if radio else types.Dropdown()
        for key, text in choices.items():
            view.add_choice(key, label=text)
        self.inputs.enum(
            name, view.values(), label=label, description=description, default=default, required=default is None, view=view, **problem
        )
        return value

    def _problem(self, name: str, value: Any, check: Check | None, required: bool) -> dict[str, Any]:
        if value is None:
            if required:  # a mark beside a field that was not yet touched would be rude; FiftyOne itself waits for it
                self.problems[name] = f"{name} is needed"
            return {}
        message = None
        if check:
            try:
                check(value)
            except UserError as error:
                message = str(error)
        if message is None:
            return {}
        self.problems[name] = message
        return {"invalid": True, "error_message": message}

    def settings(
        self, model: type[Settings], basic: Sequence[str], hidden: Sequence[str] = (), suggested: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Fields of a settings model: the basic ones, and all others behind a switch. Returns what differs from the model's
        defaults. suggested: other defaults for this form."""
        suggested = suggested or {}
        advanced = [name for name in model.model_fields if name not in basic and name not in hidden]
        self.known.update([*basic, *advanced])
        opened = self.params.get("advanced")
        used = [*basic, *([] if opened is False else advanced)]  # a script need not open the fold
        values = {name: _value(model, name, self.get(name, suggested.get(name))) for name in used}
        values = {name: value for name, value in values.items() if value is not None}
        wrong = problems(model, values)
        self.problems.update(wrong)
        for name in basic:
            self._setting(model, name, suggested.get(name), wrong.get(name))
        self.flag("advanced", "Advanced settings", f"{len(advanced)} more settings")
        if opened:
            for name in advanced:
                self._setting(model, name, suggested.get(name), wrong.get(name))
        return {name: value for name, value in values.items() if value != model.model_fields[name].default}

    def _setting(self, model: type[Settings], name: str, suggested: Any, problem: str | None) -> None:
        schema = model.model_json_schema()["properties"][name]
        kind, choices = _kind(schema)
        default = suggested if suggested is not None else schema.get("default")
        common: dict[str, Any] = {"label": name, "description": schema.get("description"), "default": default, "view": types.View(space=6)}
        if problem:
            common |= {"invalid": True, "error_message": problem}
        if choices:
            view = types.Dropdown(space=6)
            for value in choices:
                view.add_choice(value, label=str(value))
            self.inputs.enum(name, view.values(), **{**common, "view": view})
        elif kind == "boolean":
            self.inputs.bool(name, **common)
        elif kind == "integer":
            self.inputs.int(name, **common)
        elif kind == "number":
            self.inputs.float(name, **common)
        else:
            self.inputs.str(name, **{**common, "default": None if default is None else str(default)})

    def finish(self) -> None:
        """Say which given parameters mean nothing: a script's misspelt setting must not be ignored."""
        for name in self.params.keys() - self.known:
            near = difflib.get_close_matches(name, self.known, n=1)
            self.refuse(f"unknown parameter {name!r}" + (f": did you mean {near[0]!r}?" if near else ""), f"unknown_{name}")

    # what several operators ask for

    def label_field(self, view: Any) -> tuple[str | None, str]:
        """The labels to use, and what to do with those that have no mask ("error" where all have one)."""
        fields = cached_fields(view)
        choices = field_choices(fields)
        usable = [f.name for f in defaults.truth_first(view, fields)]
        if not usable:
            self.refuse("no field of this dataset holds instance masks: labels must be Detections with masks, or filled Polylines")
            self.get("label_field"), self.get("maskless")
            return None, "error"
        by_name = {f.name: f for f in fields}
        chosen = self.get("label_field", usable[0])
        maskless = self.get("maskless", "error")

        def check(name: str) -> None:
            label_path(view, name)
            found = by_name[name]
            if found.masks == 0 and maskless != "box" and not (found.among and maskless == "skip"):  # later ones may have masks
                raise UserError(
                    f"field '{name}' has {found.objects} labels{_among(found)}, none with a mask; fields with masks: {', '.join(usable)}"
                )

        self.choice("label_field", "Labels", "Detections with masks, or filled polylines", choices, usable[0], check)
        if (found := by_name.get(chosen)) and found.some_bare:
            self._maskless(found)
        return chosen, maskless

    def _maskless(self, found: LabelField) -> None:
        def decide(value: str) -> None:
            if value == "error" and 0 < found.masks < found.objects:
                raise UserError(f"{found.objects - found.masks} of {found.objects} labels have no mask: leave them out, or take their box")

        bare = found.objects - found.masks
        choices = {
            "error": "Decide" if bare else "Refuse, if there are any",
            "skip": "Leave these labels out",
            "box": "Take their box as mask",
        }
        self.choice(
            "maskless",
            "Labels without a mask",
            f"{bare} of {found.objects} labels{_among(found)}" + ("" if bare else "; the others were not looked at yet"),
            choices,
            "error",
            decide,
        )

    def model(self, dataset: Any, *, new: bool = False, exported: bool = False, best: bool = False) -> str | None:
        """A checkpoint that was trained on this dataset, a file, or with `new` an untrained network. best: the one with the best mask mAP first."""
        known = defaults.known_models(dataset)
        if best:
            known.sort(key=lambda m: -m.score)
        earlier = {m.path: m.label for m in known}
        choices = {**(NEW_MODELS if new else {}), **earlier, A_FILE: "A file ..."}
        default = next(iter(choices)) if new or earlier else A_FILE

        def check(value: str) -> None:
            if value not in choices:
                check_model_file(value, exported)

        about = "A new network or a checkpoint to start from" if new else "An earlier training on this dataset, or a file"
        chosen = self.choice("model", "Model", about, choices, default, check)
        self.known.add("model_path")
        if chosen != A_FILE:
            return str(chosen)
        kinds = "a checkpoint (.pt) or an exported model" if exported else "a checkpoint (.pt), ours or an official YOLOv8-seg one"
        return self.text(
            "model_path", "Model file", f"Path of {kinds}", check=lambda value: check_model_file(value, exported), required=True
        )


def view_buttons(outputs: types.Object, views: Mapping[str, str], prefix: str) -> None:
    """A button for each saved view that a job has made. views: kind -> name, which begins with the prefix."""
    named = list(views.items())
    for start in range(0, len(named), _BUTTONS):
        row = outputs.h_stack(f"show_{start}", gap=1)
        for kind, name in named[start : start + _BUTTONS]:
            row.btn(kind, f"Show {name.removeprefix(prefix)}", icon="visibility", on_click="set_view", params={"name": name})


def check_model_file(value: str, exported: bool) -> None:
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise UserError(f"'{value}': give the full path; the App's server does not run in your folder")
    if not path.exists():
        raise UserError(f"'{path}': no such file")
    if not exported and path.suffix != ".pt":
        raise UserError(f"'{path.name}' is not a checkpoint (.pt)")


def check_folder(value: str) -> None:
    if not Path(value).expanduser().is_absolute():
        raise UserError(f"'{value}': give the full path; the App's server does not run in your folder")


def _kind(schema: dict[str, Any]) -> tuple[str, list[Any]]:
    """JSON type of a setting and its choices, if it is one of a few."""
    for option in schema.get("anyOf", [schema]):
        if "enum" in option or "const" in option:
            return "enum", option.get("enum") or [option["const"]]
        if option.get("type") != "null":
            return option.get("type", "string"), []
    return "string", []


def _value(model: type[Settings], name: str, value: Any) -> Any:
    """Lists are typed as text: 0, 2, 5."""
    if isinstance(value, str):
        kind, _ = _kind(model.model_json_schema()["properties"][name])
        if kind == "array" and name != "imgsz":
            return [v.strip() for v in value.split(",")]
    return value


_fields: dict[tuple[Any, ...], tuple[float, list[LabelField]]] = {}


def cached_fields(view: Any) -> list[LabelField]:
    """`label_fields` of at most COUNTED samples, and not anew for every key that is pressed in a form."""
    key = (view._dataset.name, str(view._serialize()) if view is not view._dataset else "", len(view), *view.get_field_schema())
    if key not in _fields or time.monotonic() - _fields[key][0] > _CACHE_SECONDS:
        _fields.clear()
        found = label_fields(view, COUNTED)
        if not any(f.masks for f in found) and any(f.among and f.objects for f in found) and has_masks(view, found):
            found = label_fields(view)
        _fields[key] = time.monotonic(), found
    return _fields[key][1]


def field_choices(fields: Sequence[LabelField]) -> dict[str, str]:
    return {f.name: f"{f.name} ({f.masks} mask{'' if f.masks == 1 else 's'}{_among(f)})" for f in fields}


def _among(field: LabelField) -> str:
    return "" if field.among is None else f" in the first {field.among} samples that have any"


def forget_fields() -> None:
    """After an operator has changed labels."""
    _fields.clear()
