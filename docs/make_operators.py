"""Writes docs/operators.md from the operators' own forms: `python docs/make_operators.py`. A test asserts that the file is up to date.

The pictures beside them are made by docs/make_pictures.py.
"""

from __future__ import annotations

import contextlib
import runpy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.operators.executor import ExecutionContext, Executor

from fiftyone_yoloseg.cli import COMMANDS
from fiftyone_yoloseg.config import Settings
from fiftyone_yoloseg.plugin.forms import Form
from fiftyone_yoloseg.plugin.operators import OPERATORS

OUT = Path(__file__).with_name("operators.md")
SETTINGS = runpy.run_path(str(Path(__file__).with_name("make_settings.py")))
HEAD = """# Operators

Made from the forms by `docs/make_operators.py`. Press `` ` `` in the App and type "yoloseg". From a script each is called by its name and the names of its
inputs, which are checked as in the form:

```python
import fiftyone.operators as foo

foo.execute_operator("@yoloseg/fiftyone/check", dataset=dataset, params={"imgsz": 320})
```

Where samples are read, they are those of the current view, or the selected ones; the form asks which where there is a choice. A form suggests what fits the dataset and says what is wrong beside
the field; nothing can be executed before it is right. The risk is what FiftyOne tells its agents: low changes nothing, medium writes fields, files or saved views of
its own, high can delete. Jobs that need a GPU also take `share_gpu`: do not wait for another job that has it.
"""
DYNAMIC = {"label_field", "gt_field", "pred_field", "first", "second", "model", "run", "other"}
"""Whose choices and default the dataset decides, where the form offers some."""
ABOUT = {
    "split": "How they are chosen: by tags, if samples are tagged train and val, else at random",
    "files": "Checkpoints and plots in its folder. This cannot be undone",
    "maskless": "Asked for where some have none",
}
"""What is said of the dataset at hand in the form."""
_BOXES = {"label_field": "boxes"}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "convert": [_BOXES, {"split": "random"}, {"split": "field"}],
    "train": [_BOXES, {"split": "random"}, {"split": "field"}, {"model": "file"}],
    "validate": [_BOXES, {"model": "file"}],
    "evaluate": [{"gt_field": "boxes"}],
    "find_label_errors": [_BOXES],
    "predict": [{"model": "file"}, {"label_field": "ground_truth", "overwrite": True}],
    "export": [{"model": "file"}],
    "error_types": [{"page": True}],
    "manage_runs": [{"action": action} for action in ("compare", "rename", "delete")] + [{"action": "delete", "files": True}],
    "review": [{"action": action} for action in ("accept", "reject")],
    "loop": [_BOXES, {"model": "file"}],
}
"""Inputs that are only asked for after another was answered so."""


class ListedForm(Form):
    """A form that remembers which settings it holds."""

    settings_model: type[Settings] | None = None
    basic: Sequence[str] = ()
    folded: Sequence[str] = ()

    def settings(self, model: type[Settings], basic: Sequence[str], hidden: Sequence[str] = (), suggested: Any = None) -> dict[str, Any]:
        self.settings_model, self.basic = model, basic
        self.folded = [name for name in model.model_fields if name not in basic and name not in hidden]
        return super().settings(model, basic, hidden, suggested)


def render(folder: Path) -> str:
    """The page. folder: for what the forms are shown on; everything in it may be replaced."""
    shown = [operator for operator in OPERATORS if not operator().config.unlisted]
    contents = "\n".join(f"- [{operator().config.label}](#{operator().config.name})" for operator in shown)
    with example(folder) as dataset:
        return f"{HEAD}\n{contents}\n" + "".join(_section(operator(), dataset, folder) for operator in shown)


@contextlib.contextmanager
def example(folder: Path) -> Iterator[Any]:
    """A small dataset with ground truth, labels that lost their masks, predictions of two models, and two trainings, one of which can be resumed."""
    import fiftyone_yoloseg as fy
    from fiftyone_yoloseg.bridge import runs

    fo.config.default_dataset_dir, before = str(folder), fo.config.default_dataset_dir
    dataset = fy.synthetic_dataset("operators", train=3, val=2)
    try:
        for field in ("predictions", "predictions_2"):
            dataset.clone_sample_field("ground_truth", field)
            labels = dataset.values(f"{field}.detections")
            dataset.set_values(f"{field}.detections.confidence", [[0.9] * len(own) for own in labels])
            runs.remember(dataset, "predict", field)
        dataset.clone_sample_field("ground_truth", "boxes")
        dataset.set_values("boxes.detections.mask", [[None] * len(own) for own in dataset.values("boxes.detections.mask")])
        fy.convert(dataset, folder / "yolo")
        (folder / "last.pt").write_text("")
        for name, state in (("first", "done"), ("second", "stopped")):
            runs.remember(
                dataset, "train", name, dir=str(folder / name), best=str(folder / "none.pt"), last=str(folder / "last.pt"), state=state
            )
        yield dataset
    finally:
        fo.delete_dataset("operators")
        fo.config.default_dataset_dir = before


def _section(operator: Any, dataset: Any, folder: Path) -> str:
    config = operator.config
    head = f"\n## {config.label} {{: #{config.name} }}\n\n`@yoloseg/fiftyone/{config.name}`, risk {config.risk_level.value.lower()}. {config.description}.\n"
    if not getattr(operator, "asks", True):
        return head + "\nA button beside a sample that is open; it has no form.\n"
    forms = [_form(operator, dataset, {**_given(config.name, folder), **variant}) for variant in ({}, *VARIANTS.get(config.name, ()))]
    rows: dict[str, str] = {}
    for form in forms:
        for name, field in form.inputs.properties.items():
            if name in form.known and name != "advanced":
                rows.setdefault(name, _row(name, field, form, folder))
    picture = f"images/operators/{config.name}.png"
    if OUT.with_name("images").joinpath("operators", f"{config.name}.png").is_file():
        head += f"\n![The form of {config.label}]({picture})\n"
    table = "\n| input | in the form | default | values | meaning |\n|---|---|---|---|---|\n" + "\n".join(rows.values()) + "\n"
    return head + table + _folded(forms[0])


def _given(name: str, folder: Path) -> dict[str, Any]:
    """What a form waits for before it asks for anything else."""
    return {"source": str(folder / "yolo")} if name == "import_labels" else {}


def _form(operator: Any, dataset: Any, params: dict[str, Any]) -> ListedForm:
    request = {"dataset_name": dataset.name, "params": params}
    if operator.config.name == "predict_sample":
        request["current_sample"] = dataset.first().id
    form = ListedForm(params)
    operator.fill(ExecutionContext(request, executor=Executor(), operator_uri=f"@yoloseg/fiftyone/{operator.config.name}"), form)
    return form


def _row(name: str, field: Any, form: ListedForm, folder: Path) -> str:
    """A row of the table: of a setting as its model has it, of another field as the form has it."""
    view = field.to_json()["view"] or {}
    label, about = view.get("label") or "", view.get("description") or ""
    cells = [f"`{name}`", "" if label == name else label, _default(name, field), "", ABOUT.get(name, about)]
    choices = [str(choice["value"]) for choice in view.get("choices") or ()]
    if form.settings_model is not None and name in form.basic:
        cells[3] = SETTINGS["_values"](form.settings_model.model_json_schema()["properties"][name])
    elif name in DYNAMIC and choices:
        cells[2:4] = "the first that fits", "of the dataset's"
    else:
        cells[3] = ", ".join(f"`{choice}`" for choice in choices) or _KINDS.get(type(field.type).__name__, "")
    line = " | ".join(cell.replace("|", "\\|") for cell in cells)
    return f"| {line} |".replace(f"{folder}/yoloseg/operators", "<default_dataset_dir>/yoloseg/<dataset>").replace(
        f"{folder}", "<default_dataset_dir>"
    )


_KINDS = {"Boolean": "true, false", "Number": "number", "String": "text"}


def _default(name: str, field: Any) -> str:
    if name == "imgsz" and field.default:
        return "by the images"
    if field.default is None:
        return "needed" if field.required else ""
    value = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return f"`{value}`"


def _folded(form: ListedForm) -> str:
    if form.settings_model is None or not form.folded:
        return ""
    command = next((name for name, (model, _) in COMMANDS.items() if issubclass(model, form.settings_model)), None)
    names = ", ".join(f"`{name}`" for name in form.folded)
    where = f", as for [`yoloseg {command}`](settings.md#yoloseg-{command})" if command else ""
    return f'\nUnder "Advanced settings"{where}: {names}.\n'


def main() -> None:
    from fiftyone_yoloseg.bridge.database import private_database

    with tempfile.TemporaryDirectory() as folder, private_database():
        OUT.write_text(render(Path(folder) / "data"), encoding="utf-8")


if __name__ == "__main__":
    main()
