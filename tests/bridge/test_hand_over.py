"""Predictions handed over to people: the App's editor, and servers that refuse."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from review_data import make_dataset, raw  # noqa: E402

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge.provenance import origin_of  # noqa: E402
from fiftyone_yoloseg.errors import UserError  # noqa: E402

FAST: dict[str, Any] = {"imgsz": 96, "device": "cpu", "conf": 0.4}


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path, lively_file: Path) -> Iterator[Any]:
    """Three images with predictions and their scores."""
    made = make_dataset(fiftyone_db, tmp_path)
    assert fy.predict(made, lively_file, scores="all", **FAST).objects
    yield made
    made.delete()


def test_predictions_are_edited_in_the_app_and_stay_when_the_model_comes_again(dataset: Any, lively_file: Path) -> None:
    waiting = fy.review.annotate(dataset, field="predictions")
    schema = dataset.label_schemas["predictions"]
    assert len(waiting) == 3 and dataset.active_label_schemas == ["predictions"] and schema["classes"]
    assert not {"origin", "checkpoint", "mask_certainty", "flip_agreement", "box_mask_gap"} & {a["name"] for a in schema["attributes"]}
    # what the App's editor does: the label that is shown gets another mask, and the sample is saved
    sample = waiting.first()
    edited = sample.predictions.detections[0]
    edited.mask = ~edited.mask
    sample.save()
    found = {str(label["_id"]): origin_of(label) for label in raw(dataset, sample.id, "predictions")}
    assert found[edited.id] == "edited" and list(found.values()).count("edited") == 1
    report = fy.predict(dataset, lively_file, **FAST)
    assert report.kept == 1 and edited.id in [str(label["_id"]) for label in raw(dataset, sample.id, "predictions")]


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that answers, and lets nobody in."""

    def _refuse(self) -> None:
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "26")
        self.end_headers()
        self.wfile.write(b'{"detail": "wrong person"}')

    do_GET = do_POST = do_HEAD = do_OPTIONS = _refuse

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_refuses_is_a_message_and_changes_nothing(dataset: Any, refusing: str) -> None:
    before = list(dataset._sample_collection.find())
    with pytest.raises(UserError, match="cvat did not take the objects: .*401"):
        fy.review.annotate(dataset, "cvat", "predictions", url=refusing, username="u", password="p")
    with pytest.raises(UserError, match="labelstudio.* needs a package|labelstudio did not take the objects"):
        fy.review.annotate(dataset, "labelstudio", "predictions", url=refusing, api_key="k")
    assert list(dataset._sample_collection.find()) == before and dataset.list_annotation_runs() == []
