"""Pooling of features under objects, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fiftyone_yoloseg.engine.object_embeddings import cell_weights, pool
from fiftyone_yoloseg.geometry import letterbox


def test_weights_by_hand() -> None:
    """Without scaling: columns 6..10 of cells of 8 are 2 pixels of the first and 3 of the second."""
    box = letterbox.fit((16, 16), (16, 16))
    weights, v, u = cell_weights((np.ones((4, 5), np.uint8), 6, 8), box, (8, 8), (2, 2))
    assert (v, u) == (1, 0) and weights.tolist() == pytest.approx(np.array([[2 / 5, 3 / 5]]))
    corner = np.zeros((16, 16), np.uint8)
    corner[8:, 8:] = corner[0, 0] = 1
    weights, v, u = cell_weights((corner, 0, 0), box, (8, 8), (2, 2))
    assert (v, u) == (0, 0) and weights == pytest.approx(np.array([[1, 0], [0, 64]]) / 65)


def test_weights_follow_the_letterbox() -> None:
    """16 x 8 doubled into 32 x 32 with 8 columns of padding at each side: columns 4..7 of the image are input columns 16..23, one cell of 8."""
    box = letterbox.fit((16, 8), (32, 32))
    assert (box.left, box.top) == (8, 0)
    weights, v, u = cell_weights((np.ones((4, 4), np.uint8), 4, 0), box, (8, 8), (4, 4))
    assert (v, u) == (0, 2) and weights.tolist() == [[1.0]]
    weights, v, u = cell_weights((np.ones((16, 3), np.uint8), 3, 0), box, (8, 8), (4, 4))
    assert (v, u) == (0, 1) and weights == pytest.approx(np.tile([1 / 12, 2 / 12], (4, 1)))


def test_weights_are_shares_of_pixels() -> None:
    """Against counting, on random masks of any place and size; the cells are whole pixels of the image."""
    rng = np.random.default_rng(0)
    box = letterbox.fit((48, 48), (48, 48))
    for _ in range(50):
        x, y = rng.integers(0, 40, 2)
        bits = (rng.random((rng.integers(1, 49 - y), rng.integers(1, 49 - x))) < 0.5).astype(np.uint8)
        bits[0, 0] = 1
        full = np.zeros((48, 48), np.uint8)
        full[y : y + bits.shape[0], x : x + bits.shape[1]] = bits
        counts = full.reshape(6, 8, 6, 8).sum((1, 3))
        weights, v, u = cell_weights((bits, int(x), int(y)), box, (8, 8), (6, 6))
        placed = np.zeros((6, 6))
        placed[v : v + weights.shape[0], u : u + weights.shape[1]] = weights
        assert placed == pytest.approx(counts / counts.sum(), abs=1e-6)


def test_pooling_by_hand() -> None:
    """Two levels of one and two channels; each part has length 1 / sqrt(2)."""
    box = letterbox.fit((16, 16), (16, 16))
    fine, coarse = torch.tensor([[[2.0, 9.0], [9.0, 9.0]]]), torch.tensor([[[3.0]], [[4.0]]])
    object_ = np.ones((8, 8), np.uint8), 0, 0
    assert pool([fine, coarse], [object_], box) == pytest.approx(np.array([[1, 0.6, 0.8]]) / np.sqrt(2))
    assert pool([fine, coarse], [], box).shape == (0, 3)


def test_an_object_at_the_very_edge_of_a_scaled_image_has_a_cell() -> None:
    box = letterbox.fit((33, 101), (64, 64))
    for x, y in ((0, 0), (100, 32)):
        weights, _, _ = cell_weights((np.ones((1, 1), np.uint8), x, y), box, (32, 32), (2, 2))
        assert weights.sum() == pytest.approx(1)
