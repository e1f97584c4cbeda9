"""The labeling loop: proposals, decisions, and a person's work that is never lost - against a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from review_data import H, W, drawn, drawn_raw, make_dataset, propose, raw  # noqa: E402

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge import atomic  # noqa: E402
from fiftyone_yoloseg.errors import UserError  # noqa: E402

F = fo.ViewField
A, B, C = (5, 5, 10, 10), (30, 5, 10, 10), (5, 25, 10, 10)
"""Rectangles that do not touch: x, y, w, h."""


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path) -> Iterator[Any]:
    made = make_dataset(fiftyone_db, tmp_path)
    yield made
    made.delete()


def save_as_person(dataset: Any, sample_id: str, change: Any, field: str = "review") -> None:
    """Edit the labels of a field as a person does in Python; the App's server saves in the same way."""
    sample = dataset[sample_id]
    sample.reload()
    change(sample[field].detections)
    sample.save()


def halve(detections: Any) -> None:
    mask = detections[0].mask.copy()
    mask[:, 5:] = False
    detections[0].mask = mask


def origins(dataset: Any, field: str) -> dict[str, int]:
    counts = dataset.count_values(f"{field}.detections.origin")
    return {str(k): v for k, v in counts.items()}


# decisions


def test_accept_moves_what_the_view_shows_in_bulk(dataset: Any) -> None:
    ids = dataset.values("id")
    proposed = [propose(dataset, i, {A: 0.9, B: 0.4}) for i in ids]
    decision = fy.review.accept(dataset.filter_labels("review", F("confidence") > 0.8))
    assert sorted(decision.moved) == sorted(p[0] for p in proposed) and decision.conflicts == [] and decision.origins == {"model": 3}
    for i, (first, second) in zip(ids, proposed, strict=True):
        (truth,), (left,) = raw(dataset, i, "ground_truth"), raw(dataset, i, "review")
        assert (str(truth["_id"]), str(left["_id"])) == (first, second)
        assert truth["model_confidence"] == pytest.approx(0.9) and "confidence" not in truth
        assert (truth["origin"], truth["checkpoint"], truth["run"]) == ("model", "0123456789ab", "run7")
        assert truth["reviewed_at"] >= truth["predicted_at"]
    again = fy.review.accept(dataset, [proposed[0][0], proposed[1][1]])
    assert again.moved == [proposed[1][1]] and again.already == [proposed[0][0]] and again.conflicts == []
    # what FiftyOne makes of it
    detections = dataset.first().ground_truth.detections
    assert [d.label for d in detections] == ["cat"] and detections[0].mask.shape == (10, 10) and detections[0].mask.all()


def test_patches_can_be_accepted(dataset: Any) -> None:
    ids = propose(dataset, dataset.first().id, {A: 0.9, B: 0.4, C: 0.7})
    patches = dataset.to_patches("review").match(F("review.confidence") > 0.5)
    assert sorted(fy.review.accept(patches).moved) == sorted([ids[0], ids[2]])


def test_reject_puts_aside_but_not_a_persons_edit(dataset: Any) -> None:
    sample_id = dataset.first().id
    first, second = propose(dataset, sample_id, {A: 0.9, B: 0.4})
    save_as_person(dataset, sample_id, halve)
    decision = fy.review.reject(dataset)
    assert decision.moved == [second] and [(c.kind, c.label_id) for c in decision.conflicts] == [("edited", first)]
    assert "person's work (edited)" in str(decision.conflicts[0]) and sample_id in str(decision.conflicts[0])
    assert [str(label["_id"]) for label in raw(dataset, sample_id, "review_rejected")] == [second]
    assert fy.review.reject(dataset, edited=True).moved == [first]
    assert raw(dataset, sample_id, "review") == [] and raw(dataset, sample_id, "ground_truth") == []


# a person at work between prediction and accept


def test_an_edited_mask_is_accepted_as_the_person_left_it(dataset: Any) -> None:
    sample_id = dataset.first().id
    (label,) = propose(dataset, sample_id, {A: 0.9})
    save_as_person(dataset, sample_id, halve)
    decision = fy.review.accept(dataset, [label], seconds={label: 12.5})
    assert decision.moved == [label] and decision.origins == {"edited": 1} and decision.mean_edit_iou == 0.5
    (truth,) = dataset.first().ground_truth.detections
    assert truth.mask[:, :5].all() and not truth.mask[:, 5:].any()
    assert (truth.origin, truth.edit_iou, truth.edit_seconds) == ("edited", 0.5, 12.5)


@pytest.mark.parametrize("counts", ["", "Z", "zz9", "0" * 500])
def test_a_damaged_memory_of_the_models_mask_is_no_measure(dataset: Any, counts: str) -> None:
    """pycocotools reads beyond its memory where run lengths do not add up."""
    sample = dataset.first()
    (label,) = propose(dataset, sample.id, {(5, 5, 10, 10): 0.9})
    sample.reload()
    sample.review.detections[0].label, sample.review.detections[0]["model_mask"] = "dog", {"size": [64, 96], "counts": counts}
    sample.save()
    decision = fy.review.accept(dataset, [label])
    assert decision.moved == [label] and decision.origins == {"edited": 1} and decision.mean_edit_iou is None


@pytest.mark.parametrize(
    ("attribute", "value", "iou"),
    [("label", "dog", 1.0), ("bounding_box", [10 / W, 5 / H, 10 / W, 10 / H], 50 / 150), ("mask", None, 1.0)],
)
def test_an_edit_of_class_box_or_mask_is_noticed(dataset: Any, attribute: str, value: Any, iou: float) -> None:
    sample_id = dataset.first().id
    propose(dataset, sample_id, {A: 0.9})
    save_as_person(dataset, sample_id, lambda d: d[0].set_field(attribute, value))
    decision = fy.review.accept(dataset)
    assert decision.origins == {"edited": 1} and decision.mean_edit_iou == pytest.approx(iou)
    assert dataset.first().ground_truth.detections[0][attribute] == value


def test_saving_without_an_edit_is_no_edit(dataset: Any) -> None:
    sample_id = dataset.first().id
    propose(dataset, sample_id, {A: 0.9})
    save_as_person(dataset, sample_id, lambda d: d[0].tags.append("seen"))
    # the App writes the whole sample
    sample = dataset[sample_id]
    dataset._sample_collection.replace_one({"_id": sample._id}, sample.to_mongo_dict(include_id=True))
    assert fy.review.accept(dataset).origins == {"model": 1}
    (truth,) = raw(dataset, sample_id, "ground_truth")
    assert truth["tags"] == ["seen"] and truth["model_mask"]["size"] == [H, W]


def test_ground_truth_that_came_in_between_is_a_conflict(dataset: Any) -> None:
    one, two, three = dataset.values("id")
    ids = {i: propose(dataset, i, {A: 0.9, B: 0.8}) for i in (one, two, three)}
    for sample_id in (one, two):
        sample = dataset[sample_id]
        sample["ground_truth"] = fo.Detections(detections=[drawn((6, 5, 10, 10), "dog")])  # on A, IoU 90 / 110
        sample.save()
    before = {i: raw(dataset, i, "ground_truth") for i in (one, two)}
    decision = fy.review.accept(dataset)
    assert sorted(decision.moved) == sorted(ids[three])
    assert {(c.kind, c.sample_id) for c in decision.conflicts} == {("truth_changed", one), ("truth_changed", two)}
    assert len(decision.conflicts) == 4 and "force=True" in str(decision.conflicts[0])
    assert {i: raw(dataset, i, "ground_truth") for i in (one, two)} == before and len(raw(dataset, one, "review")) == 2
    # a person has looked: only what lies on their own object stays behind
    decision = fy.review.accept(dataset.select(one), force=True)
    assert decision.moved == [ids[one][1]]
    assert [(c.kind, c.label_id) for c in decision.conflicts] == [("overlap", ids[one][0])] and "'dog'" in str(decision.conflicts[0])
    assert raw(dataset, one, "ground_truth")[0] == before[one][0]


def test_own_accepts_are_no_conflict_but_an_edit_of_ground_truth_is(dataset: Any) -> None:
    sample_id = dataset.first().id
    ids = propose(dataset, sample_id, {A: 0.9, B: 0.8, C: 0.7})
    assert fy.review.accept(dataset, ids[:1]).moved == ids[:1]
    assert fy.review.accept(dataset, ids[1:2]).moved == ids[1:2]
    save_as_person(dataset, sample_id, lambda d: d[0].set_field("label", "dog"), "ground_truth")
    assert [c.kind for c in fy.review.accept(dataset, ids[2:]).conflicts] == ["truth_changed"]
    assert raw(dataset, sample_id, "ground_truth")[0]["label"] == "dog"


def test_a_deleted_object_stays_deleted(dataset: Any) -> None:
    sample_id = dataset.first().id
    first, second = propose(dataset, sample_id, {A: 0.9, B: 0.8})
    save_as_person(dataset, sample_id, lambda d: d.pop(0))
    decision = fy.review.accept(dataset, [first, second, "no-id"])
    assert decision.moved == [second] and sorted((c.kind, c.label_id) for c in decision.conflicts) == [("gone", first), ("gone", "no-id")]
    assert [str(label["_id"]) for label in raw(dataset, sample_id, "ground_truth")] == [second]


def between_read_and_write(monkeypatch: pytest.MonkeyPatch, act: Any, times: int) -> None:
    """`act` happens after a sample was read and before the change is sent, the first `times` times."""
    calls = iter(range(times))
    real = atomic.now

    def interrupted() -> Any:
        if (n := next(calls, None)) is not None:
            act(n)
        return real()

    monkeypatch.setattr(atomic, "now", interrupted)


def test_an_edit_in_the_very_moment_of_accepting_is_not_lost(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = dataset.values("id")
    ids = [propose(dataset, i, {A: 0.9})[0] for i in (one, two, three)]
    between_read_and_write(monkeypatch, lambda n: save_as_person(dataset, one, halve), times=1)
    decision = fy.review.accept(dataset)
    assert sorted(decision.moved) == sorted(ids) and decision.origins == {"model": 2, "edited": 1} and decision.mean_edit_iou == 0.5
    assert [len(raw(dataset, i, "ground_truth")) for i in (one, two, three)] == [1, 1, 1]
    (truth,) = dataset[one].ground_truth.detections
    assert not truth.mask[:, 5:].any()


def test_ground_truth_drawn_in_the_very_moment_of_accepting_is_kept(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sample_id = dataset.first().id
    (label,) = propose(dataset, sample_id, {A: 0.9})
    mine = drawn_raw(A, "dog")

    def draw(n: int) -> None:
        dataset._sample_collection.update_one(
            {"_id": dataset.first()._id}, {"$set": {"ground_truth": {"_cls": "Detections", "detections": [mine]}}}
        )

    between_read_and_write(monkeypatch, draw, times=1)
    decision = fy.review.accept(dataset)
    assert decision.moved == [] and [(c.kind, c.label_id) for c in decision.conflicts] == [("truth_changed", label)]
    assert raw(dataset, sample_id, "ground_truth") == [mine]


def test_a_sample_that_never_rests_is_reported(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, _ = dataset.values("id")
    busy, free = (propose(dataset, i, {A: 0.9})[0] for i in (one, two))

    def touch(n: int) -> None:
        save_as_person(dataset, one, lambda d: d[0].set_field("label", f"name {n}"))

    between_read_and_write(monkeypatch, touch, times=100)
    decision = fy.review.accept(dataset)
    assert decision.moved == [free] and [(c.kind, c.label_id) for c in decision.conflicts] == [("busy", busy)]
    assert raw(dataset, one, "ground_truth") == [] and raw(dataset, one, "review")[0]["label"].startswith("name ")


# proposals by a real network


SETTINGS: dict[str, Any] = {"conf": 0.0, "max_det": 4, "imgsz": 64, "device": "cpu"}


def test_prelabel_takes_empty_samples_only_and_replaces_its_own(dataset: Any, lively_file: Path) -> None:
    one, two, _ = dataset.values("id")
    sample = dataset[one]
    sample["ground_truth"] = fo.Detections(detections=[drawn(A)])
    sample.save()
    before = raw(dataset, one, "ground_truth")
    report = fy.review.prelabel(dataset, lively_file, only="empty", **SETTINGS)
    assert report.samples == 2 and report.objects == dataset.count("review.detections") > 0 and report.failed == [] == report.skipped
    assert raw(dataset, one, "ground_truth") == before and raw(dataset, one, "review") == []
    labels = raw(dataset, two, "review")
    assert all(label["origin"] == "model" and len(label["checkpoint"]) == 12 and label["run"] == "best" for label in labels)
    assert origins(dataset, "review") == {"model": report.objects}
    fy.review.prelabel(dataset, lively_file, **SETTINGS)
    again = raw(dataset, two, "review")
    assert len(again) == len(labels) and not {label["_id"] for label in labels} & {label["_id"] for label in again}
    # with ground truth, but unsure: proposals beside what is there
    propose(dataset, one, {C: 0.2})
    assert fy.review.prelabel(dataset, lively_file, only="empty", **SETTINGS).samples == 2
    assert fy.review.prelabel(dataset.select(one), lively_file, uncertain_below=0.1, **SETTINGS).samples == 0
    assert fy.review.prelabel(dataset.select(one), lively_file, uncertain_below=0.3, **SETTINGS).samples == 1
    assert raw(dataset, one, "ground_truth") == before


def test_prelabel_keeps_edits_and_remembers_what_was_rejected(dataset: Any, lively_file: Path) -> None:
    sample_id = dataset.first().id
    view = dataset.limit(1)
    fy.review.prelabel(view, lively_file, **SETTINGS)
    labels = raw(dataset, sample_id, "review")
    assert len(labels) >= 2
    save_as_person(dataset, sample_id, lambda d: d[0].set_field("label", "mine"))
    assert fy.review.reject(dataset, [str(labels[1]["_id"])]).moved == [str(labels[1]["_id"])]
    report = fy.review.prelabel(view, lively_file, only="uncertain", uncertain_below=1.0, **SETTINGS)
    assert report.samples == 1 and report.known >= 2
    after = raw(dataset, sample_id, "review")
    assert after[0]["_id"] == labels[0]["_id"] and after[0]["label"] == "mine"
    assert not {fp["model_hash"] for fp in labels[:2]} & {fp["model_hash"] for fp in after[1:]}


def test_ground_truth_drawn_while_the_model_works_is_respected(dataset: Any, lively_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, *_ = dataset.values("id")
    mine = drawn_raw(A, "dog")
    holder = {"_cls": "Detections", "detections": [mine]}
    between_read_and_write(
        monkeypatch, lambda n: dataset._sample_collection.update_one({"_id": dataset[one]._id}, {"$set": {"ground_truth": holder}}), 1
    )
    report = fy.review.prelabel(dataset, lively_file, **SETTINGS)
    assert report.skipped == [one] and report.samples == 2
    assert raw(dataset, one, "review") == [] and raw(dataset, one, "ground_truth") == [mine]


def test_predict_again_keeps_what_a_person_drew_or_changed(dataset: Any, lively_file: Path) -> None:
    sample_id = dataset.first().id
    fy.predict(dataset, lively_file, **SETTINGS)
    labels = raw(dataset, sample_id, "predictions")
    assert all(label["origin"] == "model" and label["run"] == "best" and "model_mask" not in label for label in labels)

    def edit(detections: Any) -> None:
        detections[0].label = "mine"
        detections.append(drawn(A, "drawn"))

    save_as_person(dataset, sample_id, edit, "predictions")
    report = fy.predict(dataset, lively_file, **SETTINGS)
    after = raw(dataset, sample_id, "predictions")
    assert report.kept == 2 and [label["label"] for label in after[:2]] == ["mine", "drawn"] and len(after) == 2 + len(labels)
    report = fy.predict(dataset, lively_file, overwrite=True, **SETTINGS)
    assert report.kept == 0 and len(raw(dataset, sample_id, "predictions")) == len(labels)


# where it stands


def test_status_and_marks(dataset: Any) -> None:
    one, two, _ = dataset.values("id")
    ids = propose(dataset, one, {A: 0.9, B: 0.8, C: 0.7})
    propose(dataset, two, {A: 0.9})
    save_as_person(dataset, one, halve)
    save_as_person(dataset, one, lambda d: d.append(drawn((45, 25, 5, 5))))
    fy.review.accept(dataset, ids[:2])
    fy.review.reject(dataset, ids[2:])
    status = fy.review.status(dataset)
    assert status.objects == {
        "review": {"model": 1, "human": 1, "edited": 0},
        "ground_truth": {"model": 1, "human": 0, "edited": 1},
        "review_rejected": {"model": 1, "human": 0, "edited": 0},
    }
    assert (status.samples, status.waiting, status.empty, status.mean_edit_iou) == (3, 2, 2, 0.5)
    assert "| ground_truth | 1 | 0 | 1 |" in status.table()
    save_as_person(dataset, two, halve)
    save_as_person(dataset, one, lambda d: d[1].set_field("label", "dog"), "ground_truth")
    assert origins(dataset, "review") == {"model": 1, "None": 1}
    assert fy.review.mark(dataset) == {"model": 0, "human": 1, "edited": 3}
    assert origins(dataset, "review") == {"edited": 1, "human": 1} and origins(dataset, "ground_truth") == {"edited": 2}
    assert len(dataset.filter_labels("review", F("edit_iou") == 0.5)) == 1


# editors


def test_hand_over(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no field 'review': run review.prelabel first"):
        fy.review.annotate(dataset)
    propose(dataset, dataset.first().id, {A: 0.9})
    sample = dataset.last()
    sample["ground_truth"] = fo.Detections(detections=[drawn(A, "dog")])
    sample.save()
    assert len(fy.review.annotate(dataset)) == 1 and dataset.list_saved_views() == ["yoloseg review"]
    schema = dataset.label_schemas["review"]  # without an active one the App edits nothing
    assert dataset.active_label_schemas == ["review"] and schema["classes"] == ["cat", "dog"]
    assert not {"origin", "checkpoint", "edit_iou"} & {attribute["name"] for attribute in schema["attributes"]}
    assert len(fy.review.annotate(dataset)) == 1
    with pytest.raises(UserError, match="no sample of this view has an object"):
        fy.review.annotate(dataset.skip(1))
    for name in ("CVAT_URL", "CVAT_USERNAME", "CVAT_PASSWORD", "LABELSTUDIO_URL", "LABELSTUDIO_API_KEY"):
        monkeypatch.delenv(f"FIFTYONE_{name}", raising=False)
    with pytest.raises(UserError, match="no username, password configured: .*FIFTYONE_CVAT_USERNAME"):
        fy.review.annotate(dataset, "cvat")
    with pytest.raises(UserError, match="no api_key configured"):
        fy.review.annotate(dataset, "labelstudio")
    nobody = "http://127.0.0.1:9"
    with pytest.raises(UserError, match=f"no server answers at {nobody}"):
        fy.review.annotate(dataset, "cvat", url=nobody, username="u", password="p")
    with pytest.raises(UserError, match=f"no server answers at {nobody}"):
        fy.review.annotate(dataset, "labelstudio", url=nobody, api_key="k")
    with pytest.raises(UserError, match="choose from app, cvat, labelstudio"):
        fy.review.annotate(dataset, "paint")  # type: ignore[arg-type]
    assert dataset.list_annotation_runs() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: fy.review.accept(d, field="ground_truth"), "need a field of their own"),
        (lambda d: fy.review.accept(d, field="nope"), "no field 'nope'"),
        (lambda d: fy.review.accept(d, field="lines"), "holds Polylines"),
        (lambda d: fy.review.accept(d, gt_field="lines"), "holds Polylines"),
        (lambda d: fy.review.accept(d, overlap=0.0), "overlap=0.0"),
        (lambda d: fy.review.accept(d.limit(0)), "is empty"),
        (lambda d: fy.review.reject(d, field="my field"), "letters, digits"),
        (lambda d: fy.review.prelabel(d, "no.pt", only="all"), "choose from empty, uncertain"),
        (lambda d: fy.review.prelabel(d, "no.pt", uncertain_below=2), "uncertain_below=2"),
        (lambda d: fy.review.prelabel(d, "no.pt", "fresh"), "no such file"),
        (lambda d: fy.review.prelabel(d, "no.pt", "mine"), "this tool did not write"),
        (lambda d: fy.review.prelabel(d, "no.pt", "fresh", cof=1), "did you mean 'conf'"),
        (lambda d: fy.review.status(d, "lines"), "holds Polylines"),
    ],
)
def test_refusals_change_nothing(dataset: Any, call: Any, message: str) -> None:
    dataset.add_sample_field("lines", fo.EmbeddedDocumentField, embedded_doc_type=fo.Polylines)
    sample = dataset.first()
    sample["mine"] = fo.Detections(detections=[drawn(A)])
    sample.save()
    propose(dataset, sample.id, {B: 0.5})
    before = list(dataset._sample_collection.find())
    with pytest.raises(UserError, match=message):
        call(dataset)
    assert list(dataset._sample_collection.find()) == before
