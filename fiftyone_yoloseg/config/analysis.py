"""What the commands of `yoloseg` ask for that look at predictions in a FiftyOne dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .settings import Settings
from .values import Count, Unit, Words

Overlap = Annotated[float, Field(gt=0, le=1)]


class CompareCommand(Settings):
    """`yoloseg compare`: what other models find that the first does not, and what they lose"""

    dataset: str = Field(description="name of the FiftyOne dataset")
    view: str | None = Field(None, description="name of a saved view; the whole dataset if not given")
    first: str = Field(description="field with predictions of the model that there was")
    second: str = Field(description="field with predictions of the model that may be better")
    more: Words = Field((), description="further fields, each compared with the first")
    gt_field: str = Field("ground_truth", description="field with the labels")
    key: str | None = Field("compare", description="attribute of the labels to write, and name of the saved views; none writes nothing")
    iou: Overlap = Field(0.5, description="overlap of masks at which an object is found")
    samples: int = Field(300, ge=1, description="draws of the bootstrap that says how sure the difference is")
    seed: Count = Field(0, description="seed of these draws")


class ErrorTypesCommand(Settings):
    """`yoloseg error_types`: what kind of error each wrong prediction is, and what it costs"""

    dataset: str = Field(description="name of the FiftyOne dataset")
    view: str | None = Field(None, description="name of a saved view; the whole dataset if not given")
    pred_field: str = Field("predictions", description="field with the predictions")
    gt_field: str = Field("ground_truth", description="field with the labels")
    key: str | None = Field("error", description="attribute of the labels to write, and name of the saved views; none writes nothing")
    report: Path | None = Field(None, description="HTML file to write: tables, and pictures of the most expensive errors")


class ReviewCommand(Settings):
    """`yoloseg review`: proposals of a model, accepted or rejected in bulk; a person's work is never overwritten"""

    dataset: str = Field(description="name of the FiftyOne dataset")
    view: str | None = Field(None, description="name of a saved view; the whole dataset if not given")
    action: Literal["prelabel", "accept", "reject", "edit", "mark", "status"] = Field(
        "status", description="propose objects, accept or reject them, open them for editing, mark who made each object, or count"
    )
    model: str | None = Field(None, description="prelabel: checkpoint or exported artifact")
    field: str | None = Field(None, description="field in which proposals wait")
    gt_field: str | None = Field(None, description="field that accepted objects go to")
    min_confidence: Unit | None = Field(None, description="accept, reject: only proposals from this confidence on")
    only: Words | None = Field(None, description="prelabel: which samples, of empty and uncertain")
    uncertain_below: Unit | None = Field(None, description="prelabel: confidence below which a proposal is uncertain")
    conf: Unit | None = Field(None, description="prelabel: least confidence of a proposal")
    overlap: Overlap | None = Field(None, description="accept: mask IoU with a ground truth object from which on a proposal waits")
    force: bool | None = Field(None, description="accept: also where ground truth has changed since")
    edited: bool | None = Field(None, description="reject: also what a person drew or edited")
