"""One vector for each object of an image, from one pass of the network over the whole image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..geometry.letterbox import Letterbox
from ..geometry.masks import Crop


def pool(levels: Sequence[torch.Tensor], crops: Sequence[Crop], letterbox: Letterbox) -> npt.NDArray[np.float32]:
    """(N, D): for each level the mean of the features under the object, each cell weighted with the share of it that the object covers.

    levels: (C, h, w) features of the input that `letterbox` describes, one a stride.  crops: objects in image pixels, each with at least one pixel.
    The mean of each level is scaled to length 1 and divided by the root of their number, so that all levels count alike and each vector has length 1:
    its cosine and its Euclidean distances put neighbours in the same order.
    """
    rows = np.zeros((len(crops), sum(level.shape[0] for level in levels)), np.float32)
    column = 0
    for level in levels:
        channels, height, width = level.shape
        cells = letterbox.size[0] / height, letterbox.size[1] / width
        for row, crop in enumerate(crops):
            weights, v, u = cell_weights(crop, letterbox, cells, (height, width))
            window = level[:, v : v + weights.shape[0], u : u + weights.shape[1]].reshape(channels, -1)
            mean = (window @ torch.from_numpy(weights.reshape(-1)).to(level.device)).cpu().numpy()
            rows[row, column : column + channels] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        column += channels
    return rows / np.float32(np.sqrt(len(levels)))


def cell_weights(
    crop: Crop, letterbox: Letterbox, cells: tuple[float, float], grid: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], int, int]:
    """(weights, v, u): which share of the object lies in each cell of the window whose top left cell is (row v, column u). They add up to 1.

    cells: (height, width) of a cell in input pixels.  grid: (rows, columns) of cells. Exact: areas are taken from the integral image of the mask, which is linear
    between pixel edges.
    """
    bits, x, y = crop
    sums = cv2.integral(bits).astype(np.float64)
    edges, starts = [], []
    for first, length, scale, shift, cell, count in (
        (y, bits.shape[0], letterbox.scale[1], letterbox.top, cells[0], grid[0]),
        (x, bits.shape[1], letterbox.scale[0], letterbox.left, cells[1], grid[1]),
    ):
        begin = min(max(int((first * scale + shift) // cell), 0), count - 1)
        end = min(max(int(-(-((first + length) * scale + shift) // cell)), begin + 1), count)
        # the edges of the cells in pixels of the crop; what lies outside of the grid by rounding belongs to the outermost cells
        at = np.clip((np.arange(begin, end + 1) * cell - shift) / scale - first, 0, length)
        at[0], at[-1] = 0, length
        edges.append(at)
        starts.append(begin)
    areas = np.diff(np.diff(_at(_at(sums, edges[0]).T, edges[1]).T, axis=0), axis=1)
    return np.asarray(areas / areas.sum(), np.float32), starts[0], starts[1]


def _at(values: npt.NDArray[np.float64], positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows of a table at fractional positions, linear between them."""
    low = np.minimum(positions.astype(np.int64), len(values) - 2)
    share = (positions - low)[:, None]
    return np.asarray(values[low] * (1 - share) + values[low + 1] * share)
