"""Several exports side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .base import ExportReport

HEAD = ("format", "MB", "max error", "boxes px", "mask mAP drop", "ms", "torch ms", "verdict")


@dataclass(frozen=True, slots=True)
class Row:
    """report: None if the export failed; then `error` says why. missing: a package is not installed, and the error says what to type.
    apart: one of all formats, and the settings are not for it."""

    format: str
    report: ExportReport | None
    error: str = ""
    missing: bool = False
    apart: bool = False

    @property
    def verdict(self) -> str:
        return self.report.verdict if self.report else "not installed" if self.missing else "left out" if self.apart else "failed"

    def cells(self) -> tuple[str, ...]:
        """As in HEAD."""
        r = self.report
        if r is None:
            return (self.format, *("-",) * 6, self.verdict)
        errors = [value for name, value in r.max_abs_error.items() if name != "boxes_px"]
        return (
            self.format,
            f"{r.size_bytes / 1e6:.1f}",
            f"{max(errors):.1e}" if errors else "-",
            f"{r.max_abs_error['boxes_px']:.1e}" if "boxes_px" in r.max_abs_error else "-",
            f"{r.accuracy.mask_drop:+.4f}" if r.accuracy else "-",
            f"{r.latency_ms:.1f}" if r.latency_ms is not None else "-",
            f"{r.torch_latency_ms:.1f}" if r.torch_latency_ms is not None else "-",
            self.verdict,
        )


@dataclass(frozen=True, slots=True)
class ExportTable:
    """What came of the export to several formats."""

    rows: Sequence[Row]

    @property
    def paths(self) -> list[Path]:
        """Of the artifacts that were written."""
        return [row.report.path for row in self.rows if row.report]

    @property
    def failed(self) -> list[Row]:
        """Without those whose packages are not installed, or that the settings are not for - unless nothing at all was written."""
        failed = [row for row in self.rows if row.report is None]
        return [row for row in failed if not (row.missing or row.apart)] if self.paths else failed

    @property
    def notes(self) -> list[str]:
        """A line for each format that is not verified: why, and what to do."""
        lines = []
        for row in self.rows:
            if row.report is None:
                lines.append(f"{row.format}: {row.error}")
            elif not row.report.verified:
                lines.append(f"{row.format}: not verified: {row.report.why}. {row.report.how}")
        return lines

    def text(self) -> str:
        """For a terminal."""
        cells = [HEAD, *(row.cells() for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
        lines = []
        for line in cells:
            words = [c.ljust(w) if i in (0, len(HEAD) - 1) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
            lines.append("  ".join(words).rstrip())
        return "\n".join([*lines, *self.notes])

    def markdown(self) -> str:
        """For the App."""
        lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
        lines += ["| " + " | ".join(row.cells()) + " |" for row in self.rows]
        return "\n".join(lines) + "".join(f"\n\n{note}" for note in self.notes)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, for json.dump."""
        return [
            {"format": row.format, "verdict": row.verdict, "error": row.error, "report": row.report.to_json() if row.report else None}
            for row in self.rows
        ]
