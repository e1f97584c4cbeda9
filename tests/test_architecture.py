"""The house keeps its order: imports go one way, heavy packages are loaded late, and nothing executes outside input."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fiftyone_yoloseg"
FILES = sorted(PACKAGE.rglob("*.py"))
RANK = {
    "types": 0,
    "config": 0,
    "errors": 0,
    "geometry": 1,
    "data": 2,
    "nn": 2,
    "engine": 3,
    "runtime": 4,
    "export": 5,
    "bridge": 7,
    "plugin": 8,
}
"""Lower may not import higher. engine, runtime and export are one layer, in this order."""
TOP = {"api", "cli", "console", "doctor", "results", "saving", "__main__", "__init__"}
"""Modules on top of the layers; among the layers only bridge and plugin may use them."""


def modules() -> list[str]:
    return [str(f.relative_to(PACKAGE)) for f in FILES]


def room(parts: tuple[str, ...]) -> str:
    """The layer, or the module at the top, of a dotted path inside the package."""
    return parts[0] if parts else "__init__"


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """(absolute dotted name, whether it is loaded with the module, line). Imports for type checking only are left out."""
    package = ("fiftyone_yoloseg", *path.relative_to(PACKAGE).parts[:-1])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[int] = set()
    late: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {id(n) for part in node.body for n in ast.walk(part)}
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            late |= {id(n) for n in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in late, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                yield f"{module}.{alias.name}", id(node) not in late, node.lineno


def test_the_walk_finds_the_package() -> None:
    assert len(FILES) > 40 and {room(f.relative_to(PACKAGE).parts[:-1]) for f in FILES} >= set(RANK) - {"types", "config", "errors"}
    found = {name for name, _, _ in imports(PACKAGE / "engine" / "trainer.py")}
    assert {"math", "torch", "fiftyone_yoloseg.config.TrainSettings", "fiftyone_yoloseg.engine.optim.Schedule"} <= found


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    path = PACKAGE / module
    own = room(Path(module).with_suffix("").parts)
    for name, at_once, line in imports(path):
        parts = name.split(".")
        if parts[0] != "fiftyone_yoloseg":
            continue
        other = room(tuple(parts[1:]))
        where = f"{module}:{line} imports {name}"
        if other not in RANK and other not in TOP:  # a name of the package itself, such as __version__
            other = "__init__"
        if own in TOP:
            assert other != "plugin", where
            assert other != "bridge" or not at_once, f"{where}: only inside a function"
        elif other in TOP - {"__init__"}:
            assert RANK[own] >= RANK["bridge"], where
        elif other in RANK:
            assert RANK[other] <= RANK[own], where


@pytest.mark.parametrize("module", modules())
def test_foreign_packages_stay_where_they_belong(module: str) -> None:
    own = room(Path(module).with_suffix("").parts)
    for name, _, line in imports(PACKAGE / module):
        where = f"{module}:{line} imports {name}"
        assert name.split(".")[0] != "ultralytics", where
        if name.split(".")[0] == "fiftyone":
            assert own in ("bridge", "plugin"), where


FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open", "dill.load", "joblib.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen",
}  # fmt: skip


def violations(source: str) -> list[str]:
    """Calls that could execute outside input, and errors that are swallowed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {k.arg: k.value for k in node.keywords}
            only = options.get("weights_only")
            if name in FORBIDDEN_CALLS:
                found.append(f"{node.lineno}: {name}")
            if name == "torch.load" and not (isinstance(only, ast.Constant) and only.value is True):
                found.append(f"{node.lineno}: torch.load without weights_only=True")
            if name in ("np.load", "numpy.load") and "allow_pickle" in options:
                found.append(f"{node.lineno}: {name} with allow_pickle")
            shell = options.get("shell")
            if isinstance(shell, ast.Constant) and shell.value:
                found.append(f"{node.lineno}: shell=True")
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "yaml", "marshal"):
            found.append(f"{node.lineno}: from {node.module} import")
        if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")):
            idle = [
                isinstance(s, (ast.Pass, ast.Continue)) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
                for s in node.body
            ]
            if all(idle):
                found.append(f"{node.lineno}: an error is swallowed")
    return found


@pytest.mark.parametrize(
    "line",
    ["eval('1')", "exec(x)", "pickle.load(f)", "yaml.load(f, Loader=L)", "torch.load(p)", "torch.load(p, weights_only=False)", "from pickle import loads",
     "np.load(p, allow_pickle=True)", "subprocess.run(x, shell=True)", "try:\n    f()\nexcept Exception:\n    pass"],
)  # fmt: skip
def test_the_search_for_dangers_finds_them(line: str) -> None:
    assert len(violations(line)) == 1
    assert violations("net.eval(); yaml.safe_load(f); torch.load(p, weights_only=True); np.load(p)") == []


@pytest.mark.parametrize("module", modules())
def test_nothing_executes_outside_input(module: str) -> None:
    assert violations((PACKAGE / module).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", modules())
def test_files_are_short(module: str) -> None:
    assert len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) <= 400


def python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_the_package_is_light() -> None:
    python(
        "import sys, fiftyone_yoloseg as fy\n"
        "assert fy.__version__ and 'YOLO' in dir(fy)\n"
        "from fiftyone_yoloseg import cli, config, errors, types\n"
        "cli.usage(); cli.usage('train')\n"
        "assert not {'torch', 'fiftyone', 'onnx', 'cv2'} & set(sys.modules), {'torch', 'fiftyone', 'onnx', 'cv2'} & set(sys.modules)\n"
    )


def test_the_engine_works_without_fiftyone() -> None:
    """Every module outside bridge and plugin is imported, and a network predicts, where fiftyone cannot be imported."""
    outside = [m for m in modules() if room(Path(m).parts[:-1]) not in ("bridge", "plugin") and not m.endswith("__main__.py")]
    names = [".".join(("fiftyone_yoloseg", *Path(m).with_suffix("").parts)).removesuffix(".__init__") for m in outside]
    python(
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('fiftyone', 'eta', 'mongoengine', 'pymongo', 'ultralytics'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import importlib\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "import numpy as np\n"
        "from fiftyone_yoloseg import YOLO\n"
        "assert len(YOLO('yolov8n-seg.yaml')(np.zeros((40, 60, 3), np.uint8), imgsz=64)) == 1\n"
        "assert 'fiftyone' not in sys.modules\n"
        "try:\n"
        "    import fiftyone\n"
        "except ModuleNotFoundError:\n"
        "    pass\n"
        "else:\n"
        "    raise SystemExit('the block does not work')\n"
    )


def test_type_checkers_see_what_programs_can_import() -> None:
    import fiftyone_yoloseg

    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    modules = dict.fromkeys(fiftyone_yoloseg._MODULES, "bridge")
    assert seen == fiftyone_yoloseg._PUBLIC | modules and (PACKAGE / "py.typed").exists()
