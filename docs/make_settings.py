"""Writes docs/settings.md from the settings models: `python docs/make_settings.py`. A test asserts that the file is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fiftyone_yoloseg.cli import COMMANDS
from fiftyone_yoloseg.config import Settings, TrainSettings

OUT = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Made from the models in `config.py` by `docs/make_settings.py`; change it there. On the command line a setting is written `key=value`, in Python it is a
keyword argument, and the App's forms show the same ones. What goes together, and what a resumed run may change, is in [training.md](training.md).
"""


def render() -> str:
    """One table a command."""
    return HEAD + "".join(_table(model) for model, _ in COMMANDS.values() if model.model_fields)


def _table(model: type[Settings]) -> str:
    title, _, what = (model.__doc__ or "").strip().splitlines()[0].partition(": ")
    known, also = {}, ""
    if issubclass(model, TrainSettings) and title != "`yoloseg train`":
        known, also = (
            {name: f for name, f in TrainSettings.model_fields.items() if f.default == model.model_fields[name].default},
            "The other settings of `yoloseg train` are here too.\n\n",
        )
    properties = model.model_json_schema()["properties"]
    rows = [
        f"| `{name}` | {_default(field)} | {_values(properties[name])} | {_cell(str(field.description))} |"
        for name, field in model.model_fields.items()
        if name not in known
    ]
    return (
        f"\n## {title}\n\n{what[:1].upper()}{what[1:]}.\n\n{also}| setting | default | values | meaning |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(schema: dict[str, Any]) -> str:
    """Kind and range, as the JSON schema has them."""
    kinds = [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]
    return _cell(" or ".join(dict.fromkeys(_kind(s) for s in kinds)))


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(str(v).lower() if isinstance(v, bool) else str(v) for v in schema.get("enum", [schema.get("const")]))
    names = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text", "array": "list"}
    kind = "path" if schema.get("format") == "path" else names.get(schema.get("type", ""), "any")
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return ", ".join([kind, *(f"{sign} {schema[key]:g}" for key, sign in limits.items() if key in schema)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    OUT.write_text(render(), encoding="utf-8")
