"""A pickle reader that cannot execute anything: it turns the object graph of a foreign checkpoint into inert records.

The standard library's `pickletools` splits the bytes into opcodes; the stack machine below only ever builds dicts, lists, tuples,
plain values and the three record classes of this module. No global is imported, no callable of the file is called, and `pickle` is
not used at all. Time and memory are bounded: the opcodes are counted, none of them copies what another one built, and sizes that a
file claims are never allocated.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch

MAX_PICKLE_BYTES = 32 << 20
MAX_INT = 1 << 63
MAX_OPCODES = 1_000_000  # the largest size with optimizer state and 1000 epochs of results needs about 200,000

STORAGE_TYPES: dict[str, torch.dtype] = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_TENSORS = {"torch._utils._rebuild_tensor_v2"}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_DICTS = {"collections.OrderedDict"}
# Seen in checkpoints, and of no use to us: they become records that nobody looks into.
_INERT = {
    "__builtin__.getattr", "builtins.getattr", "__builtin__.set", "builtins.set", "__builtin__.frozenset", "builtins.frozenset",
    "_codecs.encode", "argparse.Namespace", "types.SimpleNamespace", "datetime.datetime", "torch.Size", "torch.device",
    "torch.torch_version.TorchVersion", "numpy.dtype", "numpy.ndarray",
    *(f"{core}.multiarray.{name}" for core in ("numpy.core", "numpy._core") for name in ("scalar", "_reconstruct")),
    *(f"pathlib{local}.{name}" for local in ("", "._local") for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"torch.{name}" for name in ("float16", "float32", "float64", "bfloat16", "int64", "int32", "uint8", "bool")),
}  # fmt: skip
_NAME = re.compile(r"[\w.]{1,200}")
_INERT_PREFIXES = ("torch.nn.modules.", "ultralytics.")


class Refused(Exception):
    """The bytes hold something that no checkpoint needs, or are not a whole pickle. The message says what."""


class RefusedGlobal(Refused):
    """The bytes ask for a function or class outside the closed table."""

    def __init__(self, name: str) -> None:
        name = name if _NAME.fullmatch(name) else ascii(name[:200])
        super().__init__(f"it asks for {name}, which no YOLOv8-seg checkpoint needs")
        self.name = name


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that the file names, e.g. "torch.nn.modules.conv.Conv2d". Only ever a name."""

    name: str


@dataclass(slots=True, eq=False)
class Record:
    """An object that the file describes: its class by name, what it was made with, and its attributes as they lie in the file."""

    kind: str
    args: Any = ()
    state: dict[Any, Any] = field(default_factory=dict)

    @property
    def short_kind(self) -> str:
        return self.kind.rpartition(".")[2]


@dataclass(frozen=True, slots=True, eq=False)
class StorageRef:
    """`numel` numbers in the archive's entry data/<key>."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A tensor that was not read yet: a strided view of a storage. Checked to lie inside of it."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(data: bytes) -> Any:
    """The inert object graph of a pickle. Raises Refused."""
    if len(data) > MAX_PICKLE_BYTES:
        raise Refused(f"its object description has {len(data):,} bytes; more than {MAX_PICKLE_BYTES:,} are not read")
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > MAX_OPCODES:
                raise Refused(f"its object description has more than {MAX_OPCODES:,} steps")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (ValueError, OverflowError) as error:  # from pickletools: cut off or not a pickle
        raise Refused(f"its object description is damaged or cut off ({error})") from None
    raise Refused("its object description is cut off")


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "SHORT_BINSTRING", "BINSTRING",
}  # fmt: skip
_IGNORED = {"PROTO", "FRAME"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The opcodes of pickle protocols 2 to 5 that data needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Refused("its object description is damaged (stack underflow)")
        return self.stack.pop()

    def top(self) -> Any:
        self.stack.append(self.pop())
        return self.stack[-1]

    def pop_marked(self) -> list[Any]:
        if not self.marks:
            raise Refused("its object description is damaged (no mark)")
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def step(self, name: str, argument: Any) -> None:
        push = self.stack.append
        if name in _LITERALS:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise Refused("its object description is damaged (unknown reference)")
            push(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _TUPLES:
            push(tuple(reversed([self.pop() for _ in range(_TUPLES[name])])))
        elif name == "TUPLE":
            push(tuple(self.pop_marked()))
        elif name == "EMPTY_DICT":
            push({})
        elif name in ("EMPTY_LIST", "EMPTY_SET"):  # a set is kept as a list: nothing of the file is hashed but dict keys
            push([])
        elif name in ("LIST", "FROZENSET"):
            push(self.pop_marked())
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            self._extend([self.pop()] if name == "APPEND" else self.pop_marked())
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            items = [*reversed([self.pop(), self.pop()])] if name == "SETITEM" else self.pop_marked()
            if name == "DICT":
                push({})
            self._set_items(items)
        elif name == "GLOBAL":
            push(_global(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            push(_global(module, attribute))
        elif name == "REDUCE" or name == "NEWOBJ":
            arguments, what = self.pop(), self.pop()
            push(_construct(what, arguments))
        elif name == "NEWOBJ_EX":
            _, arguments, what = self.pop(), self.pop(), self.pop()
            push(_construct(what, arguments))
        elif name == "BUILD":
            self._build(self.pop())
        elif name == "BINPERSID":
            push(_storage(self.pop()))
        elif name == "POP":
            self.pop()
        elif name == "POP_MARK":
            self.pop_marked()
        elif name == "DUP":
            push(self.top())
        elif name not in _IGNORED:
            raise Refused(f"its object description uses the pickle instruction {name}, which no checkpoint needs")

    def _extend(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Record):
            raise Refused("its object description is damaged (append to something that is no list)")

    def _set_items(self, items: list[Any]) -> None:
        target = self.top()
        if len(items) % 2 or not isinstance(target, dict | Record):
            raise Refused("its object description is damaged (items without a dict)")
        if isinstance(target, Record):
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Keys get hashed, and the hash of nested tuples or of huge numbers can take forever.
            if not (isinstance(key, str | float | None) or (isinstance(key, int) and -MAX_INT < key < MAX_INT)):
                raise Refused(f"its object description has a dict key that is no plain value (type {type(key).__name__})")
            target[key] = value

    def _build(self, state: Any) -> None:
        target = self.top()
        if isinstance(target, Record):
            if isinstance(state, tuple) and len(state) == 2:  # (attributes, slots)
                state = state[0] or state[1]
            target.state = state if isinstance(state, dict) else {}
        elif not isinstance(target, dict | list | TensorRef):  # attributes of those (an OrderedDict's _metadata) are of no use
            raise Refused("its object description is damaged (attributes for a plain value)")


def _global(module: Any, name: Any) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise Refused("its object description is damaged (a class name that is no text)")
    full = f"{module}.{name}"
    known = full in STORAGE_TYPES or full in _TENSORS or full in _PARAMETERS or full in _DICTS or full in _INERT
    if not known and not (full.startswith(_INERT_PREFIXES) and _NAME.fullmatch(full)):
        raise RefusedGlobal(full)
    return Global(full)


def _construct(what: Any, arguments: Any) -> Any:
    if not isinstance(what, Global) or not isinstance(arguments, tuple):
        raise Refused("its object description calls something that is not a named class or function")
    if what.name in _TENSORS:
        return _tensor(arguments)
    if what.name in _PARAMETERS:
        if not arguments or not isinstance(arguments[0], TensorRef):
            raise Refused("it describes a parameter without a tensor")
        return arguments[0]
    if what.name in _DICTS:
        if arguments:
            raise Refused("it describes an OrderedDict with arguments")
        return {}
    return Record(what.name, arguments)


def _storage(persistent_id: Any) -> StorageRef:
    match persistent_id:
        case ("storage", Global(name=type_name), str(key), _, numel) if type_name in STORAGE_TYPES and len(key) < 100 and _is_count(numel):
            return StorageRef(key, STORAGE_TYPES[type_name], numel)
    raise Refused("it describes tensor data in a way that is not known")


def _tensor(arguments: tuple[Any, ...]) -> TensorRef:
    match arguments:
        case (StorageRef() as storage, offset, tuple(shape), tuple(stride), *_) if _is_count(offset):
            pass
        case _:
            raise Refused("it describes a tensor in a way that is not known")
    if len(shape) != len(stride) or len(shape) > 8 or not all(map(_is_count, (*shape, *stride))):
        raise Refused("it describes a tensor whose shape and strides do not fit")
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if 0 not in shape and last >= storage.numel:
        raise Refused(f"it describes a tensor that reaches to element {last:,} of data/{storage.key}, which has {storage.numel:,}")
    return TensorRef(storage, offset, shape, stride)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
