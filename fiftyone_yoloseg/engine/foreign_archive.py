"""The zip archive of a foreign checkpoint: its description and its numbers, with every size checked before anything is read."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from .foreign_pickle import MAX_PICKLE_BYTES, Refused, RefusedGlobal, TensorRef, read_pickle


def open_archive(path: Path) -> zipfile.ZipFile:
    """The archive of a checkpoint. Raises CheckpointError that says what the file is instead."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(64)
    if not zipfile.is_zipfile(path):
        if not head:
            raise CheckpointError("the file is empty")
        if head.startswith(b"PK"):
            raise CheckpointError("the file is truncated (its end is missing); copy or download it again")
        if head.startswith(b"version https://git-lfs"):
            raise CheckpointError("this is a Git LFS pointer, not the checkpoint; fetch it with `git lfs pull`")
        _refuse_bare_pickle(path)
        raise CheckpointError("not a checkpoint: a PyTorch checkpoint is a zip archive, this file is not")
    return archive_of(path)


def archive_of(path: Path) -> zipfile.ZipFile:
    """Raises OSError or BadZipFile."""
    try:
        return zipfile.ZipFile(path)
    except (ValueError, NotImplementedError, struct.error) as error:  # damage in its directory
        raise zipfile.BadZipFile(str(error)) from None


def _refuse_bare_pickle(path: Path) -> None:
    """If the bytes are a pickle that asks for something outside the table, say for what."""
    with path.open("rb") as file:
        data = file.read(MAX_PICKLE_BYTES)
    try:
        read_pickle(data)
    except RefusedGlobal:
        raise
    except Refused:
        return


def read_description(archive: zipfile.ZipFile) -> tuple[str, bytes]:
    """The archive's top folder and its data.pkl."""
    names = archive.namelist()
    found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(found) != 1:
        raise CheckpointError("not a checkpoint: the archive has no data.pkl" if not found else "the archive has more than one data.pkl")
    folder = found[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in names:
        raise CheckpointError("this is a TorchScript archive, not a checkpoint")
    if f"{folder}byteorder" in names and _read_entry(archive, f"{folder}byteorder", 16) != b"little":
        raise CheckpointError("written on a big-endian machine; save it again on a little-endian one")
    return folder, _read_entry(archive, found[0], MAX_PICKLE_BYTES)


def _read_entry(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One entry of at most `limit` bytes; its checksum is verified."""
    info = archive.getinfo(name)
    if info.file_size > limit:
        raise CheckpointError(f"its entry {name} has {info.file_size:,} bytes, at most {limit:,} are expected")
    try:
        with archive.open(info) as file:
            data = file.read(limit + 1)
    except (
        RuntimeError,
        NotImplementedError,
        OSError,
        ValueError,
        zlib.error,
        lzma.LZMAError,
    ) as error:  # encrypted, unknown compression, reading fails
        raise CheckpointError(f"its entry {name} cannot be read ({error})") from None
    if len(data) != info.file_size:
        raise zipfile.BadZipFile(f"{name} is cut off")
    return data


def read_tensor(archive: zipfile.ZipFile, folder: str, ref: TensorRef) -> Tensor:
    """A contiguous copy of the numbers, float32 or int64."""
    storage = ref.storage
    size = storage.numel * storage.dtype.itemsize
    name = f"{folder}data/{storage.key}"
    try:
        data = _read_entry(archive, name, size)
    except KeyError:
        raise CheckpointError(f"its tensor data {name} is missing; the file is incomplete") from None
    if len(data) != size:
        raise CheckpointError(f"its entry {name} has {len(data):,} bytes where {size:,} are declared")
    flat = torch.frombuffer(bytearray(data), dtype=storage.dtype)
    return (
        flat.as_strided(ref.shape, ref.stride, ref.offset)
        .to(torch.float32 if storage.dtype.is_floating_point else torch.int64)
        .clone(memory_format=torch.contiguous_format)
    )
