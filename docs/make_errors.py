"""Writes docs/errors.md from the sources: every message that a user can get. `python docs/make_errors.py`; a test asserts that it is up to date."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from fiftyone_yoloseg import errors

PACKAGE = Path(errors.__file__).parent
OUT = Path(__file__).with_name("errors.md")
HEAD = """# Error messages

Made from the sources by `docs/make_errors.py`. Each says what is wrong, where, and what to do; `...` stands for what differs from case to case. On the command line
an error is one such line and exit code 1 (2 for arguments), in Python an exception of the kind given here (`fiftyone_yoloseg.errors`, all of them are `UserError`s), in the App
a red box in the form or in the operator's output. What to do about the most frequent ones is in [troubleshooting](troubleshooting.md).
"""
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.UserError)}


def messages() -> dict[str, list[tuple[str, str]]]:
    """Folder -> (kind, message) of every error that is raised in it with a text."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        area = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS and node.args:
                missing = node.func.id == "MissingDependencyError"
                texts = [f"{_text(node.args[1])} needs the package ..."] if missing else _texts(node.args[0])
                found.setdefault(area, set()).update((node.func.id, text) for text in texts)
    return {area: sorted(pairs, key=lambda pair: (pair[1].lower(), pair[0])) for area, pairs in found.items()}


def _texts(node: ast.expr) -> Iterator[str]:
    """The message with `...` for each value; nothing where it is only passed on."""
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
        return
    text = " ".join(_text(node).split())
    while "......" in text:
        text = text.replace("......", "...")
    if sum(map(str.isalpha, text)) > 10:
        yield text


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "..."


def render() -> str:
    parts = [HEAD]
    for area, pairs in sorted(messages().items()):
        parts.append(f"\n## {area}\n\n| kind | message |\n|---|---|\n")
        parts += [f"| `{kind}` | {_cell(text)} |\n" for kind, text in pairs]
    return "".join(parts)


def _cell(text: str) -> str:
    for plain, shown in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("_", "\\_"), ("[", "\\["), ("`", "\\`")):
        text = text.replace(plain, shown)
    return text


if __name__ == "__main__":
    OUT.write_text(render(), encoding="utf-8")
