"""Errors that are the user's to fix. Each message says what is wrong, where, and what to do.

The command line prints them as one line and exits with 1; the App's forms and operators show the same text.
Anything that is not a `UserError` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Base of every error caused by input: a path, a setting, a file, a dataset."""


class SettingsError(UserError):
    """An unknown setting, or a value out of range. One line a key."""


class DataError(UserError):
    """A dataset, view, label file or image cannot be used."""


class FidelityError(DataError):
    """Objects would lose more of their shape than was asked for."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, of another task, or holds something that we refuse to load."""


class ExportError(UserError):
    """An export is impossible here, or its artifact does not give the same answers as the model."""


class MissingDependencyError(UserError):
    """An optional package is not installed; the message says what to type."""

    def __init__(self, package: str, what: str, extra: str = "", install: str = "") -> None:
        """extra: ours that installs it. install: what to do where none does."""
        command = install or f"pip install 'fiftyone-yoloseg[{extra}]'"
        super().__init__(f"{what} needs the package {package!r}: {command}")


class ProcessError(UserError):
    """One of the processes of a training failed or was killed; the others were ended."""


class Stopped(UserError):
    """Long work was stopped on request, between two steps, with its files in order."""
