"""Selections, saved views, patches, groups and dynamic groups: each operator works on the right samples, or says in one message why not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402

from fiftyone_yoloseg.bridge import background, jobs  # noqa: E402
from fiftyone_yoloseg.bridge.jobs import load_view  # noqa: E402
from fiftyone_yoloseg.bridge.views import check_view  # noqa: E402
from fiftyone_yoloseg.errors import DataError, UserError  # noqa: E402
from fiftyone_yoloseg.plugin.base import JobOperator  # noqa: E402
from fiftyone_yoloseg.plugin.forms import forget_fields  # noqa: E402
from fiftyone_yoloseg.plugin.model_operators import Predict  # noqa: E402
from fiftyone_yoloseg.plugin.operators import OPERATORS  # noqa: E402
from fiftyone_yoloseg.plugin.review_operators import Review  # noqa: E402
from fiftyone_yoloseg.plugin.sample_operators import AcceptSample, PredictSample, RejectSample  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parents[1] / "bridge"))
from review_data import make_dataset, propose  # noqa: E402

A, B = (5, 5, 10, 10), (30, 5, 10, 10)
ON_VIEWS = [o for o in OPERATORS if issubclass(o, JobOperator) and o.name not in ("import_labels", "manage_runs")]
OF_SAMPLES = (PredictSample, AcceptSample, RejectSample)
MODEL = {"model": "file", "imgsz": "64", "device": "cpu", "conf": 0, "max_det": 2}


def labels(confidence: float | None = None) -> Any:
    mask = np.ones((24, 32), bool)
    return fo.Detections(detections=[fo.Detection(label="a", bounding_box=[0.1, 0.1, 0.4, 0.4], mask=mask, confidence=confidence)])


def sample(folder: Path, i: int, **fields: Any) -> Any:
    path = folder / f"{len(list(folder.glob('*.png')))}.png"
    cv2.imwrite(str(path), np.full((60, 80, 3), 10 * i, np.uint8))
    tags = ["train" if i % 3 else "val"]
    return fo.Sample(str(path), tags=tags, ground_truth=labels(), predictions=labels(0.5), second=labels(0.6), review=labels(0.7), **fields)


@pytest.fixture(scope="module")
def flat(fiftyone_db: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """9 images of 3 scenes."""
    dataset, folder = fiftyone_db.Dataset(), tmp_path_factory.mktemp("flat")
    dataset.add_samples([sample(folder, i, scene=str(i % 3), frame=i) for i in range(9)], progress=False)
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def grouped(fiftyone_db: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """6 groups of two images."""
    dataset, folder = fiftyone_db.Dataset(), tmp_path_factory.mktemp("grouped")
    dataset.add_group_field("group", default="left")
    groups = [fo.Group() for _ in range(6)]
    dataset.add_samples([sample(folder, i, group=g.element(s)) for i, g in enumerate(groups) for s in ("left", "right")], progress=False)
    yield dataset
    dataset.delete()


@pytest.fixture(autouse=True)
def read_anew() -> None:
    forget_fields()


def context(operator: Any, dataset: Any, request: dict[str, Any], **params: Any) -> ExecutionContext:
    return ExecutionContext({"dataset_name": dataset.name, "params": params, **request}, executor=Executor(), operator_uri=operator.name)


def opened(operator: Any, dataset: Any, request: dict[str, Any]) -> tuple[dict[str, str], str]:
    """What is wrong with the form, and all of it."""
    fields = operator.resolve_type(context(operator, dataset, request), "inputs").to_json()["type"]["properties"]
    return {name: f["error_message"] for name, f in fields.items() if f["invalid"]}, json.dumps(fields)


def views_of(flat: Any, grouped: Any) -> dict[str, tuple[Any, dict[str, Any], int]]:
    """What a user can look at, as the App sends it, and how many samples that is."""
    ids, dynamic = flat.values("id"), flat.group_by("scene", order_by="frame")
    right = grouped.select_group_slices("right").values("id")
    return {
        "dataset": (flat, {}, 9),
        "view": (flat, {"view": flat.match_tags("train")._serialize()}, 6),
        "saved view": (flat, {"view_name": "kept"}, 6),
        "selected samples": (flat, {"selected": ids[:4], "view_target": "SELECTED_SAMPLES"}, 4),
        "dynamic groups": (flat, {"view": dynamic._serialize()}, 9),
        "a selected dynamic group": (flat, {"view": dynamic._serialize(), "selected": ids[:1], "view_target": "SELECTED_SAMPLES"}, 3),
        "one dynamic group": (flat, {"view": dynamic.get_dynamic_group("1")._serialize()}, 3),
        "flat dynamic groups": (flat, {"view": flat.group_by("scene", flat=True)._serialize()}, 9),
        "the active slice": (grouped, {}, 6),
        "a selection in another slice": (grouped, {"group_slice": "right", "selected": right[:4], "view_target": "SELECTED_SAMPLES"}, 4),
        "two slices": (grouped, {"view": grouped.select_group_slices(["left", "right"])._serialize()}, 12),
    }  # fmt: skip


@pytest.mark.parametrize("case", [
    "dataset", "view", "saved view", "selected samples", "dynamic groups", "a selected dynamic group", "one dynamic group", "flat dynamic groups",
    "the active slice", "a selection in another slice", "two slices",
])  # fmt: skip
def test_every_operator_takes_what_the_user_looks_at(case: str, flat: Any, grouped: Any) -> None:
    if not flat.has_saved_view("kept"):
        flat.save_view("kept", flat.match_tags("train"))
    dataset, request, count = views_of(flat, grouped)[case]
    for kind in ON_VIEWS:
        operator = kind()
        if kind in OF_SAMPLES:
            continue
        wrong, shown = opened(operator, dataset, request)
        alone = count == 3 and wrong.keys() <= {"split"}  # tags of one scene are all train, or all val: a random split is asked for
        assert not wrong or alone, (operator.name, wrong)
        _, params = operator._form(context(operator, dataset, request))
        if not alone:
            assert len(load_view(params)) == count, operator.name
        assert ("samples of" in shown and "dynamic groups are used" in shown) == (
            "dynamic group" in case and case not in ("one dynamic group", "flat dynamic groups")
        )


def test_selected_labels(flat: Any) -> None:
    first = flat.first()
    chosen = {"label_id": first.ground_truth.detections[0].id, "sample_id": first.id, "field": "ground_truth"}
    wrong, shown = opened(Predict(), flat, {"selected_labels": [chosen], "view_target": "SELECTED_LABELS"})
    assert not wrong
    operator = next(o for o in ON_VIEWS if o.name == "validate")()
    _, shown = opened(operator, flat, {"selected_labels": [chosen], "view_target": "SELECTED_LABELS"})
    assert "ground_truth (1 mask)" in shown, "only the label that is selected"


def test_what_cannot_be_used_says_why_and_what_to_do(flat: Any, grouped: Any) -> None:
    for request, dataset, message in (
        ({"view": flat.to_patches("ground_truth")._serialize()}, flat, "this is a patches view of '{}': use the view of samples"),
        (
            {"view_target": "DATASET"},
            grouped,
            "'{}' has grouped samples (slices: left, right): choose one, e.g. view.select_group_slices('left')",
        ),
    ):
        for kind in ON_VIEWS:
            if kind not in OF_SAMPLES and not (kind is Review and "patches" in message):
                wrong, _ = opened(kind(), dataset, request)
                assert message.format(dataset.name) in wrong["problem"] and len(wrong) == 1, kind.name
    with pytest.raises(DataError, match=r"has dynamic groups: view.flatten\(\) has all their samples"):
        check_view(flat.group_by("scene"))


def test_predictions_go_to_the_samples_that_were_meant(flat: Any, grouped: Any, lively_file: Path) -> None:
    model = {**MODEL, "model_path": str(lively_file)}
    for name, (dataset, request, count) in views_of(flat, grouped).items():
        if name in ("a selected dynamic group", "a selection in another slice"):
            done = Predict().execute(context(Predict(), dataset, request, **model, label_field="found"))
            everything = dataset.select_group_slices() if dataset is grouped else dataset
            written = everything.exists("found")
            assert done["images"] == len(written) == count, name
            assert set(written.values("scene" if dataset is flat else "group.name")) == {"0" if dataset is flat else "right"}
            dataset.delete_sample_field("found")


def test_the_open_sample_is_predicted(flat: Any, grouped: Any, lively_file: Path) -> None:
    model = {**MODEL, "model_path": str(lively_file)}
    patches = flat.to_patches("ground_truth")
    right = grouped.select_group_slices("right").last()
    for dataset, request, wanted in (
        (flat, {"current_sample": flat.last().id}, flat.last().id),
        (flat, {"selected": [flat.last().id]}, flat.last().id),
        (flat, {"view": patches._serialize(), "current_sample": patches.first().id}, patches.first().sample_id),
        (grouped, {"current_sample": right.id, "group_slice": "left"}, right.id),
    ):
        done = PredictSample().execute(context(PredictSample(), dataset, request, **model, label_field="found"))
        everything = dataset.select_group_slices() if dataset is grouped else dataset
        assert done["images"] == 1 and everything.exists("found").values("id") == [wanted]
        dataset.delete_sample_field("found")
    with pytest.raises(UserError, match="open a sample, or select one"):
        PredictSample().execute(context(PredictSample(), flat, {}, **model))


def test_objects_of_the_open_sample_are_decided_on_at_once(fiftyone_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but what is said at the end is shown, however long it takes: the dialog of a progress bar would stay over the App."""
    dataset = make_dataset(fiftyone_db, tmp_path, 2)
    monkeypatch.setattr(background, "POLL", 0.0)
    one, two = dataset.values("id")

    def click(operator: Any, **request: Any) -> list[tuple[str, dict[str, Any]]]:
        stream = operator.execute(context(operator, dataset, {"current_sample": one, "spaces": None, **request}))
        return [(m.body.operator_uri, m.body.params) for m in stream]

    assert "has no field 'review'" in click(AcceptSample())[-1][1]["message"]
    first, second = propose(dataset, one, {A: 0.9, B: 0.8})
    propose(dataset, two, {A: 0.9})
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "run", lambda *args, run=jobs.run: time.sleep(0.2) or run(*args))
        reloaded, (told, said) = click(AcceptSample(), selected_labels=[{"label_id": first, "sample_id": one, "field": "review"}])
    assert reloaded[0] == "reload_dataset" and told == "notify" and said["message"] == "1 object accepted" and said["variant"] == "success"
    assert dataset.values("ground_truth.detections.id") == [[first], None]
    assert click(RejectSample())[-1][1]["message"] == "1 object rejected"
    assert dataset[one].review_rejected.detections[0].id == second and len(dataset[two].review.detections) == 1, (
        "of the other sample nothing"
    )
    assert click(AcceptSample())[-1][1]["message"] == "No object waits here"
    propose(dataset, one, {A: 0.7})
    kept = click(AcceptSample())[-1][1]
    assert kept["variant"] == "warning" and kept["message"].startswith("0 objects accepted; left: object ")
    dataset.delete()


def test_placements() -> None:
    places = {o.name: o().resolve_placement(None) for o in ON_VIEWS}
    shown = {name: (p.to_json()["place"], p.to_json()["view"]["prompt"]) for name, p in places.items() if p}
    grid, modal = "samples-grid-secondary-actions", "samples-viewer-actions"
    assert shown == {
        "train": (grid, True), "predict": (grid, True), "evaluate": (grid, True), "review": (grid, True),
        "predict_sample": (modal, True), "accept_sample": (modal, False), "reject_sample": (modal, False),
    }  # fmt: skip
