"""The form of the import: a preview before anything is done, what is wrong beside its field, and the dataset opened afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402

from fiftyone_yoloseg.errors import UserError  # noqa: E402
from fiftyone_yoloseg.plugin.import_operator import ImportLabels  # noqa: E402


@pytest.fixture
def opened(fiftyone_db: Any, tiny_dataset: Path) -> Iterator[Any]:
    """The dataset that is open in the App: the three validation images of the tiny dataset, without labels."""
    before = set(fiftyone_db.list_datasets())
    dataset = fiftyone_db.Dataset("opened")
    dataset.add_samples([fo.Sample(filepath=str(path)) for path in sorted((tiny_dataset.parent / "images/val").iterdir())])
    yield dataset
    for name in set(fiftyone_db.list_datasets()) - before:
        fiftyone_db.delete_dataset(name)


def context(dataset: Any | None, app: bool = False, **params: Any) -> ExecutionContext:
    request = {"dataset_name": dataset.name if dataset is not None else None, "params": params} | ({"spaces": None} if app else {})
    return ExecutionContext(request_params=request, executor=Executor(), operator_uri="@yoloseg/fiftyone/import_labels")


def form(dataset: Any | None, **params: Any) -> dict[str, Any]:
    fields: dict[str, Any] = ImportLabels().resolve_input(context(dataset, **params)).to_json()["type"]["properties"]
    return fields


def problems(fields: dict[str, Any]) -> dict[str, str]:
    return {name: field["error_message"] for name, field in fields.items() if field["invalid"]}


def test_the_form_shows_what_it_found(opened: Any, tiny_dataset: Path) -> None:
    assert list(form(opened)) == ["source"]
    fields = form(opened, source=str(tiny_dataset))
    assert problems(fields) == {}
    assert fields["preview"]["view"]["label"] == "Images: 6 train, 3 val"
    assert fields["preview"]["view"]["description"] == '3 classes: disc, it\'s a "square", star'
    assert [c["value"] for c in fields["into"]["view"]["choices"]] == ["new", "this"]
    assert fields["name"]["default"].startswith("tiny") and fields["label_field"]["default"] == "ground_truth"
    assert [c["value"] for c in fields["splits"]["view"]["choices"]] == ["all", "train", "val"]
    assert "name" not in form(opened, source=str(tiny_dataset), into="this")
    assert "into" not in form(None, source=str(tiny_dataset))  # no dataset is open: nothing to choose, but a script may have chosen
    assert problems(form(None, source=str(tiny_dataset), into="this")).keys() == {"into"}

    labels = tiny_dataset.parent / "labels"
    assert list(form(opened, source=str(labels))) == ["source", "classes"]
    fields = form(opened, source=str(labels / "val"), classes="a, b, c")
    assert fields["preview"]["view"]["label"] == "3 of 3 label files have the name of an image of 'opened'"
    assert fields["predictions"]["default"] is True and fields["label_field"]["default"] == "predictions" and "into" not in fields


@pytest.mark.parametrize(
    ("params", "field", "message"),
    [
        ({"source": "images"}, "source", "give the full path"),
        ({"source": "/no/such"}, "source", "there is no such file or folder"),
        ({"source": "{root}/images"}, "source", "neither a dataset.yaml nor label files"),
        ({"source": "{root}", "name": "Opened"}, "name", "there is a dataset 'opened'"),
        ({"source": "{root}", "splits": "test"}, "splits", "choose one of all, train, val"),
        ({"source": "{root}", "into": "that"}, "into", "choose one of new, this"),
        ({"source": "{root}", "label_field": "a b"}, "label_field", "letters, digits"),
        ({"source": "{root}", "predictions": True, "label_field": "ground_truth"}, "label_field", "is for ground truth"),
        ({"source": "{root}", "into": "this", "label_field": "mine"}, "label_field", "on 1 of 3 matched samples"),
        ({"source": "{root}", "form": "boxes"}, "form", "choose one of masks, polylines"),
        ({"source": "{root}/labels", "classes": "a,a"}, "classes", "'a' is given twice"),
        ({"source": "{root}", "clases": "a"}, "unknown_clases", "did you mean 'classes'"),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(opened: Any, tiny_dataset: Path, params: dict[str, Any], field: str, message: str) -> None:
    opened.add_sample_field("mine", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    sample = opened.first()
    sample["mine"] = fo.Detections(detections=[fo.Detection(label="x", bounding_box=[0, 0, 1, 1])])
    sample.save()
    params = params | {"source": params["source"].replace("{root}", str(tiny_dataset.parent))}
    shown = form(opened, **params)
    assert message in problems(shown)[field]
    assert ("overwrite" in shown) == ("matched" in message)
    if "overwrite" in shown:
        assert problems(form(opened, **params, overwrite=True)) == {}
    with pytest.raises(UserError):
        ImportLabels().execute(context(opened, **params))


def test_label_files_alone_need_an_open_dataset(opened: Any, tiny_dataset: Path) -> None:
    labels = str(tiny_dataset.parent / "labels")
    assert "open the dataset that has their images" in problems(form(None, source=labels))["source"]
    opened.delete_samples(opened.values("id"))
    assert "none of 9 label files can be matched" in problems(form(opened, source=labels, classes="a, b, c"))["problem"]


def test_the_app_opens_a_new_dataset_and_reloads_this_one(opened: Any, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImportLabels, "own_process", False)  # the process is tested elsewhere

    def messages(**params: Any) -> list[tuple[str, dict[str, Any]]]:
        stream = ImportLabels().execute(context(opened, app=True, source=str(tiny_dataset), **params))
        return [(m.body.operator_uri, m.body.params) for m in stream if m.body.operator_uri != "set_progress"]

    (opens, where), (shows, output) = messages(name="new one")
    assert (opens, where, shows) == ("open_dataset", {"dataset": "new one"}, "show_output")
    assert "**18 objects as masks in 9 images (6 train, 3 val)**" in output["results"]["summary"]
    assert fo.load_dataset("new one").count("ground_truth.detections") == 18
    (reloads, _), (_, output) = messages(into="this", splits="val")
    assert reloads == "reload_dataset" and output["results"]["matched"] == 3 and opened.count("ground_truth.detections") == 6
    ((shows, output),) = messages(name="new one")
    assert shows == "show_output" and "there is a dataset 'new one'" in output["results"]["error"]


def test_from_a_script_without_an_open_dataset(opened: Any, tiny_dataset: Path) -> None:
    result = ImportLabels().execute(context(None, source=str(tiny_dataset), name="scripted", form="polylines", bad_rows="error"))
    assert isinstance(result, dict) and (result["dataset"], result["created"], result["added"]) == ("scripted", True, 9)
