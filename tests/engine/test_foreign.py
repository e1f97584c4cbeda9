"""The restricted reader: real files give their weights, hostile ones give one clear error and never run.

The files are made here opcode by opcode, because the reader must hold against what no honest writer would produce.
"""

from __future__ import annotations

import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fiftyone_yoloseg.engine.checkpoint import load_checkpoint, save_checkpoint
from fiftyone_yoloseg.engine.foreign import MAX_MODULES, OUR_FORMAT, ForeignCheckpoint, is_foreign, read_foreign
from fiftyone_yoloseg.engine.foreign_pickle import MAX_OPCODES, MAX_PICKLE_BYTES, Record, Refused, TensorRef, read_pickle
from fiftyone_yoloseg.errors import CheckpointError
from fiftyone_yoloseg.nn.blocks import DFL, SPPF, Bottleneck, C2f, Conv, Proto
from fiftyone_yoloseg.nn.head import SegmentationHead
from fiftyone_yoloseg.nn.model import YOLOv8Seg

# A small assembler of checkpoints --------------------------------------------------------------------------------------


class Call:
    """REDUCE of a global with arguments."""

    def __init__(self, name: str, *args: Any) -> None:
        self.name, self.args = name, args


class Global:
    def __init__(self, name: str) -> None:
        self.name = name


class Raw:
    """Opcodes as they are."""

    def __init__(self, code: bytes) -> None:
        self.code = code


class Storage:
    def __init__(self, key: str, type_name: str, numel: int) -> None:
        self.key, self.type_name, self.numel = key, type_name, numel


def encode(value: Any) -> bytes:
    """Protocol 2 opcodes that push the value."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"}(" + b"".join(encode(k) + encode(v) for k, v in value.items()) + b"u"
        case Global(name=name):
            module, _, attribute = name.rpartition(".")
            return f"c{module}\n{attribute}\n".encode()
        case Call(name=name, args=args):
            return encode(Global(name)) + encode(args) + b"R"
        case Storage():
            return encode(("storage", Global(f"torch.{value.type_name}"), value.key, "cpu", value.numel)) + b"Q"
        case Raw():
            return value.code
        case Record():
            return encode(Global(value.kind)) + b")\x81" + encode(value.state) + b"b"
    raise TypeError(type(value))


def program(value: Any) -> bytes:
    return b"\x80\x02" + encode(value) + b"."


def archive(path: Path, description: bytes, entries: dict[str, bytes] | None = None, folder: str = "best") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{folder}/data.pkl", description)
        for name, data in (entries or {}).items():
            file.writestr(f"{folder}/{name}", data)
    return path


KINDS = {
    Conv: "ultralytics.nn.modules.conv.Conv",
    C2f: "ultralytics.nn.modules.block.C2f",
    Bottleneck: "ultralytics.nn.modules.block.Bottleneck",
    SPPF: "ultralytics.nn.modules.block.SPPF",
    DFL: "ultralytics.nn.modules.block.DFL",
    Proto: "ultralytics.nn.modules.block.Proto",
    SegmentationHead: "ultralytics.nn.modules.head.Segment",
    nn.SiLU: "torch.nn.modules.activation.SiLU",
}
STORAGES = {torch.float16: "HalfStorage", torch.float32: "FloatStorage", torch.int64: "LongStorage"}


class Official:
    """A checkpoint in the official format with the weights of one of our networks, half precision; `top` may be bent before writing."""

    def __init__(self, nc: int = 2, size: str = "n") -> None:
        torch.manual_seed(0)
        self.net = YOLOv8Seg(nc, size)
        self.entries: dict[str, bytes] = {"version": b"3\n", "byteorder": b"little"}
        self.root = Record("ultralytics.nn.tasks.SegmentationModel")
        self.root.state = {
            "names": {i: f"thing {i}" for i in range(nc)},
            "nc": nc,
            "_modules": {"model": self._record(self.net.model, "torch.nn.modules.container.Sequential")},
        }
        self.top: dict[str, Any] = {
            "version": "8.0.0",
            "license": "AGPL-3.0",
            "ema": None,
            "model": self.root,
            "train_args": {"imgsz": 320, "epochs": 7, "lr0": 0.01, "save_dir": Call("pathlib.PosixPath", "runs", "x"), "bad": float("nan")},
        }

    def tensor(self, value: Tensor) -> Call:
        key = str(len(self.entries))
        self.entries[f"data/{key}"] = value.detach().contiguous().numpy().tobytes()
        storage = Storage(key, STORAGES[value.dtype], value.numel())
        return Call(
            "torch._utils._rebuild_tensor_v2", storage, 0, tuple(value.shape), tuple(value.stride()), False, Call("collections.OrderedDict")
        )

    def _record(self, module: nn.Module, kind: str | None = None) -> Record:
        index = next((int(n) for n, m in self.net.model.named_children() if m is module), None)
        layer = {10: "upsampling.Upsample", 13: "upsampling.Upsample"}.get(index or 0)
        if isinstance(module, nn.Identity):
            kind = f"torch.nn.modules.{layer}" if layer else "ultralytics.nn.modules.conv.Concat"
        name = type(module).__name__
        record = Record(kind or KINDS.get(type(module)) or f"torch.nn.modules.x.{name}")
        half = {
            k: v.half() if v.is_floating_point() else v
            for k, v in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        }
        record.state = {
            "_parameters": {
                k: Call("torch._utils._rebuild_parameter", self.tensor(half[k]), False, Call("collections.OrderedDict"))
                for k in module._parameters
                if k in half
            },
            "_buffers": {k: self.tensor(half[k]) for k in module._buffers if k in half},
            "_non_persistent_buffers_set": Call("__builtin__.set", []),
            "_modules": {k: self._record(m) for k, m in module.named_children()},
        }
        for attribute in ("stride", "padding", "dilation", "groups", "eps"):
            if hasattr(module, attribute):
                record.state[attribute] = getattr(module, attribute)
        if isinstance(module, Bottleneck):
            record.state["add"] = module.residual
        return record

    def at(self, path: str) -> Record:
        """The record of a module by its dotted name."""
        record = self.root
        for name in path.split("."):
            record = record.state["_modules"][name]
        return record

    def write(self, path: Path) -> Path:
        return archive(path, program(self.top), self.entries)


# What must be read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nc", "size"), [(2, "n"), (1, "s")])
def test_weights_names_and_settings_arrive(tmp_path: Path, nc: int, size: str) -> None:
    official = Official(nc, size)
    found = read_foreign(official.write(tmp_path / "a.pt"))
    assert (found.nc, found.size, found.imgsz, found.version, found.license) == (nc, size, 320, "8.0.0", "AGPL-3.0")
    assert found.names == {i: f"thing {i}" for i in range(nc)}
    assert found.train_args == {"imgsz": 320, "epochs": 7, "lr0": 0.01}  # neither the path object nor the NaN
    wanted = official.net.state_dict()
    assert list(found.state) == list(wanted)
    for key, value in wanted.items():
        assert found.state[key].dtype == (torch.float32 if value.is_floating_point() else torch.int64), key
        assert torch.equal(found.state[key], value.half().float() if value.is_floating_point() else value), key
    YOLOv8Seg(nc, size).load_state_dict(found.state, strict=True)


def test_averaged_weights_go_before_the_model(tmp_path: Path) -> None:
    official = Official()
    official.top["ema"] = official.root
    official.top["model"] = Record("ultralytics.nn.tasks.SegmentationModel")  # empty: reading it would fail
    assert read_foreign(official.write(tmp_path / "last.pt")).size == "n"


def test_settings_object_list_of_names_and_strided_weights(tmp_path: Path) -> None:
    official = Official()
    official.root.state["names"] = ["disc", "star"]
    settings = Record("ultralytics.utils.IterableSimpleNamespace")
    settings.state = {"imgsz": [100, 200], "epochs": 3}
    official.top["train_args"] = settings
    weight = official.at("model.2.cv1.conv").state["_parameters"]["weight"].args[0]
    storage, _, shape, _ = weight.args[:4]
    official.entries["data/bigger"] = torch.arange(2 * storage.numel + 3, dtype=torch.float32).numpy().tobytes()
    stride = (2 * shape[1], 2, 1, 1)
    weight.args = (Storage("bigger", "FloatStorage", 2 * storage.numel + 3), 3, shape, stride, *weight.args[4:])
    found = read_foreign(official.write(tmp_path / "a.pt"))
    assert found.names == {0: "disc", 1: "star"} and found.imgsz == 224 and found.train_args == {"imgsz": [100, 200], "epochs": 3}
    assert found.state["model.2.cv1.conv.weight"].flatten().tolist() == [3 + 2 * i for i in range(storage.numel)]


def test_peer_file(test_data: Path) -> None:
    path = test_data / "peer" / "yolov8n-seg-shapes.pt"
    assert is_foreign(path)
    found = read_foreign(path)
    assert isinstance(found, ForeignCheckpoint)
    assert len(found.state) == 417 and found.names == {0: "disc", 1: "square", 2: "star"}
    assert (found.nc, found.size, found.imgsz, found.version) == (3, "n", 192, "8.4.190")
    assert found.license is not None and found.license.startswith("AGPL-3.0")
    assert found.state["model.22.dfl.conv.weight"].flatten().tolist() == list(range(16))
    YOLOv8Seg(3, "n").load_state_dict(found.state, strict=True)


def test_reading_does_not_import_ultralytics(tmp_path: Path) -> None:
    import sys

    read_foreign(Official().write(tmp_path / "a.pt"))
    assert not any(name.split(".")[0] == "ultralytics" for name in sys.modules)


def test_ours_and_foreign_are_told_apart(tmp_path: Path) -> None:
    ours = tmp_path / "ours.pt"
    torch.save({"format": OUR_FORMAT, "model": {"w": torch.zeros(3)}, "names": {0: "a"}, "metrics": {"map": 0.5}, "none": None}, ours)
    assert not is_foreign(ours)
    with pytest.raises(CheckpointError, match="one of our own"):
        read_foreign(ours)
    official = Official()
    official.top["train_args"]["project"] = "/home/x/fiftyone-yoloseg"
    assert is_foreign(official.write(tmp_path / "a.pt"))
    assert is_foreign(tmp_path / "missing.pt")


# What must be refused, and must not run ----------------------------------------------------------------------------------


class Bomb:
    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.args


def bombs(trace: Path) -> dict[str, tuple[bytes, str]]:
    """Name -> data.pkl that would create `trace` when unpickled, and the global that the error must name."""
    command = f"touch {trace}"
    code = f"open({str(trace)!r}, 'w')"
    looked_up = Call("__builtin__.getattr", Global("torch.nn.modules.conv.Conv2d"), "forward")
    call_lookup = b"\x80\x02" + encode(looked_up) + encode((command,)) + b"R."
    nested = Call("__builtin__.getattr", Call("__builtin__.getattr", Global("torch.nn.modules.conv.os"), "system"), "__call__")
    return {
        "os.system": (pickle.dumps({"model": Bomb(os.system, command)}, 2), f"{os.system.__module__}.system"),
        "os.system, protocol 4": (pickle.dumps({"model": Bomb(os.system, command)}, 4), f"{os.system.__module__}.system"),
        "eval": (pickle.dumps(Bomb(eval, code), 2), "eval"),
        "exec": (pickle.dumps(Bomb(exec, code), 5), "exec"),
        "open": (program(Call("io.open", str(trace), "w")), "io.open"),
        "subprocess": (program(Call("subprocess.Popen", ["touch", str(trace)])), "subprocess.Popen"),
        "import_module": (program(Call("importlib.import_module", "os")), "importlib.import_module"),
        "torch._utils": (program(Call("torch._utils._import_dotted_name", "os.system")), "torch._utils._import_dotted_name"),
        "torch.load": (program(Call("torch.load", str(trace))), "torch.load"),
        "torch.hub": (program(Call("torch.hub.load", "a/b", "c")), "torch.hub.load"),
        "numpy": (program(Call("numpy.testing._private.utils.runstring", code, {})), "runstring"),
        "partial": (program(Call("functools.partial", Global("os.system"), command)), "functools.partial"),
        "result of getattr is called": (call_lookup, "not a named class or function"),
        "nested getattr is called": (b"\x80\x02" + encode(nested) + encode((command,)) + b"R.", "not a named class or function"),
        "a record is called": (b"\x80\x02" + encode(Record("ultralytics.x.Y")) + encode((command,)) + b"R.", "not a named class"),
        "INST": (b"\x80\x02(" + encode(command) + b"ios\nsystem\n.", "INST"),
        "OBJ": (b"\x80\x02(" + encode(Global("ultralytics.A")) + encode(command) + b"o.", "OBJ"),
        "EXT": (b"\x80\x02\x82\x01.", "EXT1"),
        "text persistent id": (b"\x80\x02Pos.system\n.", "PERSID"),
    }


@pytest.mark.parametrize("name", list(bombs(Path("x"))))
@pytest.mark.parametrize("bare", [False, True], ids=["zip", "bare pickle"])
def test_bomb_is_refused_and_not_executed(tmp_path: Path, name: str, bare: bool) -> None:
    trace = tmp_path / "it_ran"
    data, named = bombs(trace)[name]
    path = tmp_path / "best.pt"
    if bare:
        path.write_bytes(data)
    else:
        archive(path, data)
    with pytest.raises(CheckpointError) as caught:
        read_foreign(path)
    assert str(path) in str(caught.value)
    assert "refused" in str(caught.value) or bare
    if not bare or ("." in named and " " not in named):
        assert named in str(caught.value)
    assert is_foreign(path)
    assert not trace.exists()


def test_the_bombs_would_go_off_in_pickle(tmp_path: Path) -> None:
    """Otherwise the test above proves nothing."""
    trace = tmp_path / "it_ran"
    pickle.loads(bombs(trace)["os.system"][0])
    assert trace.exists()


def test_getattr_and_unknown_torch_layers_stay_inert() -> None:
    lookup = read_pickle(program(Call("__builtin__.getattr", Global("torch.nn.modules.conv.os"), "system")))
    assert isinstance(lookup, Record) and lookup.kind == "__builtin__.getattr"
    layer = read_pickle(program(Call("torch.nn.modules.module.Module", "x")))
    assert isinstance(layer, Record) and not isinstance(layer, nn.Module)


def test_a_yolov5_file_is_named_as_such(tmp_path: Path) -> None:
    path = archive(tmp_path / "v5.pt", program({"model": Record("models.yolo.SegmentationModel")}))
    with pytest.raises(CheckpointError, match=r"models\.yolo\.SegmentationModel.*YOLOv5"):
        read_foreign(path)


# Damaged and lying files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Official().write(tmp_path_factory.mktemp("official") / "good.pt").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.001, 0.3, 0.9, 0.999, 0.99999])
def test_truncated_at_any_length(tmp_path: Path, good: bytes, share: float) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(good[: int(len(good) * share)])
    with pytest.raises(CheckpointError, match="truncated|damaged|empty|not a checkpoint") as caught:
        read_foreign(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_flipped_bit_in_the_weights_is_found(tmp_path: Path, good: bytes) -> None:
    with zipfile.ZipFile(_written(tmp_path / "a.pt", good)) as file:
        info = max(file.infolist(), key=lambda i: i.file_size if "/data/" in i.filename else 0)
    data = bytearray(good)
    data[info.header_offset + 1000] ^= 1
    with pytest.raises(CheckpointError, match="damaged.*CRC"):
        read_foreign(_written(tmp_path / "b.pt", bytes(data)))


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "truncated"),
        (program({"model": 1}), "not a checkpoint"),
    ],
)
def test_not_an_archive(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_foreign(_written(tmp_path / "best.pt", content))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(CheckpointError, match="no such file"):
            read_foreign(path)


def test_archives_without_a_description(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"no data\.pkl"):
        read_foreign(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_foreign(archive(tmp_path / "b.pt", program({}), {"constants.pkl": b""}))
    with pytest.raises(CheckpointError, match="big-endian"):
        read_foreign(archive(tmp_path / "c.pt", program({}), {"byteorder": b"big"}))


def _weight(official: Official) -> Call:
    found = official.at("model.0.conv").state["_parameters"]["weight"].args[0]
    assert isinstance(found, Call)
    return found


def _out_of_bounds(o: Official) -> None:
    _weight(o).args = (Storage("2", "HalfStorage", 432), 1, *_weight(o).args[2:])


def _huge_stride(o: Official) -> None:
    a = _weight(o).args
    _weight(o).args = (a[0], a[1], a[2], (1 << 39, 9, 3, 1), *a[4:])


def _negative_offset(o: Official) -> None:
    _weight(o).args = (_weight(o).args[0], -1, *_weight(o).args[2:])


def _huge_declared_storage(o: Official) -> None:
    old = _weight(o).args[0]
    _weight(o).args = (Storage(old.key, "HalfStorage", 1 << 38), *_weight(o).args[1:])


def _longer_storage_than_entry(o: Official) -> None:
    old = _weight(o).args[0]
    _weight(o).args = (Storage(old.key, "HalfStorage", old.numel + 1), *_weight(o).args[1:])


def _expanded_to_terabytes(o: Official) -> None:
    a = _weight(o).args
    _weight(o).args = (a[0], 0, (1 << 20, 1 << 20, 3, 3), (0, 0, 0, 0), *a[4:])


def _entry_missing(o: Official) -> None:
    del o.entries[f"data/{_weight(o).args[0].key}"]


def _entry_longer(o: Official) -> None:
    o.entries[f"data/{_weight(o).args[0].key}"] += b"more"


def _entry_outside(o: Official) -> None:
    _weight(o).args = (Storage("../../../etc/passwd", "HalfStorage", 432), *_weight(o).args[1:])


def _unknown_storage_type(o: Official) -> None:
    _weight(o).args = (Storage("2", "QInt8Storage", 432), *_weight(o).args[1:])


def _ragged_stride(o: Official) -> None:
    a = _weight(o).args
    _weight(o).args = (a[0], 0, a[2], (1,), *a[4:])


def _nan(o: Official) -> None:
    o.entries[f"data/{_weight(o).args[0].key}"] = b"\xff" * 864


@pytest.mark.parametrize(
    ("bend", "message"),
    [
        (_out_of_bounds, "reaches to element 432"),
        (_huge_stride, "reaches to element"),
        (_negative_offset, "not known"),
        (_huge_declared_storage, "views of more than"),
        (_longer_storage_than_entry, "864 bytes where 866 are declared"),
        (_expanded_to_terabytes, "none of the YOLOv8-seg sizes"),
        (_entry_missing, "is missing"),
        (_entry_longer, "868 bytes, at most 864"),
        (_entry_outside, r"best/data/\.\./\.\./\.\./etc/passwd is missing"),
        (_unknown_storage_type, r"torch\.QInt8Storage"),
        (_ragged_stride, "shape and strides"),
        (_nan, r"not finite.*model\.0\.conv\.weight"),
    ],
)
def test_lies_about_the_data(tmp_path: Path, bend: Callable[[Official], None], message: str) -> None:
    official = Official()
    bend(official)
    with pytest.raises(CheckpointError, match=message):
        read_foreign(official.write(tmp_path / "best.pt"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02" + b"N" * (MAX_OPCODES + 1) + b".", "steps"),
        (b"\x80\x02X" + struct.pack("<I", 1 << 31) + b"abc", "damaged"),  # claims 2 GB of text
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc", "damaged"),  # claims 1 TB of bytes
        (b"\x80\x02N" + b"r" + struct.pack("<I", (1 << 32) - 1) + b"0.", "underflow"),  # memo index that makes pickle allocate 64 GB
        (b"\x80\x02.", "underflow"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02h\x05.", "unknown reference"),
        (b"\x80\x02NNNs.", "without a dict"),
        (b"\x80\x02(N", "cut off"),
        (b"\x80\x02}" + encode((1, 2)) + b"Ns.", "dict key"),
        (b"\x80\x02}" + encode(1 << 100) + b"Ns.", "dict key"),
        (b"\x80\x04" + encode((1,)) + encode("x") + b"\x93.", "no text"),
        (b"\xff\xfe", "damaged"),
        (b"", "cut off|damaged"),
    ],
)
def test_hostile_opcodes_fail_fast(data: bytes, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(Refused, match=message):
        read_pickle(data)
    assert time.perf_counter() - start < 10


def test_too_long_a_description() -> None:
    with pytest.raises(Refused, match="bytes"):
        read_pickle(bytes(MAX_PICKLE_BYTES + 1))


def test_deep_nesting_neither_overflows_nor_hangs(tmp_path: Path) -> None:
    data = b"\x80\x02N" + b"\x85" * 300_000 + b"."
    value = read_pickle(data)
    assert isinstance(value, tuple)
    del value
    doubling = b"\x80\x02)" + b"".join(b"q\x00h\x00\x86" for _ in range(1000)) + b"."  # a tuple whose hash or print takes 2^1000 steps
    official = Official()
    official.at("model.0.conv").state["stride"] = Raw(doubling[2:-1])
    with pytest.raises(CheckpointError, match="stride a tuple"):
        read_foreign(official.write(tmp_path / "a.pt"))


def test_modules_that_contain_themselves(tmp_path: Path) -> None:
    official = Official()
    inner = encode(Global("ultralytics.nn.modules.conv.Conv")) + b")\x81r" + struct.pack("<I", 9) + encode({})[:-1]
    loop = (
        inner + encode("_modules") + b"}(" + encode("a") + b"j" + struct.pack("<I", 9) + encode("b") + b"j" + struct.pack("<I", 9) + b"uub"
    )
    official.at("model.0").state["_modules"]["loop"] = Raw(loop)
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=f"nested deeper|more than {MAX_MODULES}"):
        read_foreign(official.write(tmp_path / "a.pt"))
    assert time.perf_counter() - start < 20


# Other models ------------------------------------------------------------------------------------------------------------


def _head(kind: str) -> Callable[[Official], None]:
    def bend(o: Official) -> None:
        o.at("model.22").kind = f"ultralytics.nn.modules.head.{kind}"

    return bend


def _layer(index: int, kind: str) -> Callable[[Official], None]:
    def bend(o: Official) -> None:
        o.at(f"model.{index}").kind = f"ultralytics.nn.modules.block.{kind}"

    return bend


def _set(path: str, attribute: str, value: Any) -> Callable[[Official], None]:
    def bend(o: Official) -> None:
        o.at(path).state[attribute] = value

    return bend


def _drop(path: str, group: str, name: str) -> Callable[[Official], None]:
    def bend(o: Official) -> None:
        del o.at(path).state[group][name]

    return bend


def _fused(o: Official) -> None:
    for name, module in o.net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            o.at(name).state.update(_parameters={}, _buffers={})


def _extra(o: Official) -> None:
    o.at("model.22").state["_parameters"]["one2one"] = o.tensor(torch.zeros(3))


def _more_layers(o: Official) -> None:
    o.at("model").state["_modules"]["23"] = o.at("model.22")


def _wider(o: Official) -> None:
    weight = _weight(o)
    weight.args = (*weight.args[:2], (8, 3, 3, 3), *weight.args[3:])


def _other_activation(o: Official) -> None:
    o.at("model.0.act").kind = "torch.nn.modules.activation.ReLU"


def _bare(o: Official) -> None:
    o.top = {"model": {"w": o.tensor(torch.zeros(1))}}


def _no_model(o: Official) -> None:
    o.top = {"epoch": 3}


def _names(value: Any) -> Callable[[Official], None]:
    def bend(o: Official) -> None:
        o.root.state["names"] = value

    return bend


@pytest.mark.parametrize(
    ("bend", "message"),
    [
        (_head("Detect"), "detection model"),
        (_head("Pose"), "pose model"),
        (_head("Classify"), "classification model"),
        (_head("OBB"), "oriented boxes"),
        (_head("RTDETRDecoder"), "layer 22 is RTDETRDecoder"),
        (_layer(2, "C3"), "YOLOv5.*layer 2 is C3 where YOLOv8-seg has C2f"),
        (_layer(2, "C3k2"), "YOLO11"),
        (_layer(4, "RepNCSPELAN4"), "YOLOv9"),
        (_more_layers, "24 layers where YOLOv8-seg has 23"),
        (_wider, "8 channels in layer 0"),
        (_drop("model.2.m", "_modules", "0"), "repeats"),
        (_drop("model.5.bn", "_buffers", "running_mean"), r"1 missing \(model\.5\.bn\.running_mean\)|folded"),
        (
            _drop("model.22.proto.cv3.conv", "_parameters", "weight"),
            r"YOLOv8n-seg with 2 classes; 1 missing \(model\.22\.proto\.cv3\.conv\.weight\)",
        ),
        (_fused, "folded into the convolutions"),
        (_extra, r"1 not known \(model\.22\.one2one\)"),
        (_set("model.3.conv", "stride", (1, 1)), r"model\.3\.conv has stride \(1, 1\) where YOLOv8-seg has \(2, 2\)"),
        (_set("model.3.bn", "eps", 1e-5), "epsilon 1e-05"),
        (_set("model.12.m.0", "add", True), "a residual connection"),
        (_other_activation, "activation ReLU"),
        (_bare, "bare weights"),
        (_no_model, "no model in it .it has epoch"),
        (_names({0: "a"}), "class names do not fit its 2 classes"),
        (_names(["a", "b", "c"]), "class names"),
        (_names({0: "a", 1: [1]}), "class names"),
    ],
)
def test_other_models_are_refused_with_the_reason(tmp_path: Path, bend: Callable[[Official], None], message: str) -> None:
    official = Official()
    bend(official)
    path = official.write(tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        read_foreign(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_tensor_references_read_nothing() -> None:
    ref = read_pickle(program(Official().tensor(torch.zeros(2, 3))))
    assert isinstance(ref, TensorRef) and ref.shape == (2, 3)


ODD_VALUES = [
    None,
    0,
    -1,
    1 << 62,
    1.5,
    "",
    "x",
    (),
    (1, 2),
    [],
    [[]],
    {},
    {"a": 1},
    {1: 2},
    Record("torch.device"),
    Call("torch.Size", [1]),
    Global("torch.device"),
]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_odd_values_anywhere_give_one_clear_error_or_none(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    official = Official()
    places: list[tuple[dict[Any, Any], Any]] = [(official.top, key) for key in official.top]
    for name, _ in [("", None), *official.net.named_modules()]:
        state = official.at(name).state if name else official.root.state
        places += [(state, key) for key in state]
        for group in ("_parameters", "_buffers", "_modules"):
            places += [(state[group], key) for key in state.get(group, {})]
    where, key = data.draw(st.sampled_from(places), label="place")
    where[key] = data.draw(st.sampled_from(ODD_VALUES), label="value")
    path = official.write(tmp_path_factory.mktemp("odd") / "best.pt")
    try:
        assert len(read_foreign(path).state) == 417
    except CheckpointError as error:
        assert str(error).startswith(str(path))


def test_a_checkpoint_that_we_saved_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "ours.pt"
    train = {"optimizer": torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1, momentum=0.9).state_dict(), "epoch": 3}
    save_checkpoint(path, YOLOv8Seg(2, "n"), names={0: "a", 1: "b"}, imgsz=64, train_args={"lr0": 0.1}, origin="test", train=train)
    assert not is_foreign(path)
    assert load_checkpoint(path).names == {0: "a", 1: "b"}
