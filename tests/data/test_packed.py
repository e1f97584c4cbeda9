"""Packed objects are the objects, in less memory."""

from __future__ import annotations

import pickle
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from fiftyone_yoloseg.data.packed import PackedInstances, pack
from fiftyone_yoloseg.types import CropMask, InstanceRecord

PIXELS = st.integers(-(2**31), 2**31 - 1)
NUMBERS = st.floats(allow_nan=False)
NAMES = st.text(st.characters(exclude_categories=()), max_size=8)  # with the surrogates that stand for bytes in odd file names
RECORDS = st.lists(
    st.builds(
        InstanceRecord,
        st.integers(0, 2**31 - 1),
        st.builds(CropMask, PIXELS, PIXELS, PIXELS, PIXELS, st.binary(max_size=20)),
        st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
        st.booleans(),
        st.none() | NAMES,
        st.none() | NUMBERS,
        st.none() | NUMBERS,
    ),
    max_size=4,
)


@given(RECORDS)
def test_nothing_is_lost(records: list[InstanceRecord]) -> None:
    packed = pack(records)
    assert tuple(packed) == tuple(records) and len(packed) == len(records) and bool(packed) == bool(records)
    assert packed == tuple(records) and tuple(records) == packed and hash(packed) == hash(tuple(records))
    assert packed == pack(iter(records)) and packed != (*records, 1) and packed != list(records)
    assert pickle.loads(pickle.dumps(packed)) == packed


def test_positions_and_slices() -> None:
    records = tuple(InstanceRecord(i, CropMask(i, 0, 2, 2, b"04"), (float(i), 0.0, i + 2.0, 2.0), source_id=f"a.txt:{i}") for i in range(3))
    packed = pack(records)
    assert (packed[0], packed[-1], packed[1:]) == (records[0], records[2], records[1:])
    assert packed.index(records[1]) == 1 and records[2] in packed and packed.count(records[0]) == 1
    assert pack(()) == () == PackedInstances(0, b"")


def test_memory() -> None:
    """100 objects of 60 bytes of runs: the runs, 27 bytes of numbers, 10 of name, and little else."""
    tracemalloc.start()
    packed = pack(
        InstanceRecord(i, CropMask(900, 900, 90, 90, bytes(60)), (900.0, 900.0, 990.0, 990.0), source_id="12345.txt:3") for i in range(100)
    )
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(packed.data) == 100 * (60 + 29 + 11) and size < len(packed.data) + 1000
