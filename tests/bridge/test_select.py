"""What is chosen to be labelled next, read from and tagged in a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

from review_data import drawn, make_dataset, propose  # noqa: E402

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge.predict import embed  # noqa: E402
from fiftyone_yoloseg.bridge.select import view_of  # noqa: E402
from fiftyone_yoloseg.errors import UserError  # noqa: E402

A, B, C = (5, 5, 10, 10), (30, 5, 10, 10), (5, 25, 10, 10)
ONLY_UNSURE = {"diversity": 0.0, "balance": 0.0}


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path) -> Iterator[Any]:
    """Five samples: labelled (three cats), sure, unsure, two objects of a rare class of which one is unsure, nothing predicted."""
    made = make_dataset(fiftyone_db, tmp_path, 5)
    labelled, sure, unsure, rare, _ = made.values("id")
    made.add_sample_field("ground_truth", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    sample = made[labelled]
    sample["ground_truth"] = fo.Detections(detections=[drawn(A), drawn(B), drawn(C)])
    sample.save()
    propose(made, labelled, {A: 0.5}, field="predictions")
    propose(made, sure, {A: 0.99}, field="predictions")
    propose(made, unsure, {A: 0.5}, field="predictions")
    propose(made, rare, {A: 0.99, B: 0.6}, cls=1, field="predictions")
    made.set_values("vector", [[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [9.0, 0.0]])
    yield made
    made.delete()


def test_images(dataset: Any) -> None:
    labelled, sure, unsure, rare, bare = dataset.values("id")
    chosen = fy.select_to_label(dataset, 2, weights=ONLY_UNSURE)
    assert chosen.samples == [unsure, rare] and chosen.candidates == 4 and chosen.objects == 3
    assert chosen.picks[0].uncertainty == 1.0 and chosen.picks[0].score == 1.0
    assert set(dataset.match_tags("to_label").values("id")) == {unsure, rare}
    assert view_of(dataset, chosen, "predictions").values("id") == [unsure, rare]
    # another choice replaces the tags, other tags stay
    dataset.tag_samples("mine")
    chosen = fy.select_to_label(dataset, 1, weights={"uncertainty": 0, "balance": 0}, embeddings="vector")
    assert chosen.samples == [bare] == dataset.match_tags("to_label").values("id") and chosen.picks[0].diversity == 1.0
    assert dataset.count_sample_tags() == {"mine": 5, "to_label": 1}
    vectors = np.array(dataset.values("vector"))
    assert (
        fy.select_to_label(dataset, 3, embeddings=vectors, tag=None).samples == fy.select_to_label(dataset, 3, embeddings="vector").samples
    )
    assert fy.select_to_label(dataset, 1, weights={"uncertainty": 0, "diversity": 0}).samples == [rare]
    assert fy.select_to_label(dataset.select([labelled, sure]), 5).samples == [sure]  # more than there is


def test_the_models_own_embeddings(dataset: Any, lively_file: Path, tmp_path: Path) -> None:
    vectors = embed(dataset, lively_file, imgsz=64, device="cpu", batch=2)
    assert vectors.shape == (5, 64 + 128 + 256) and np.isfinite(vectors).all()  # channels of size n at strides 8, 16, 32
    one_by_one = np.concatenate([embed(dataset[i : i + 1], lively_file, imgsz=64, device="cpu") for i in range(5)])
    np.testing.assert_allclose(vectors, one_by_one, rtol=1e-3, atol=1e-4)
    far = np.linalg.norm(vectors[1:] - vectors[0], axis=1).argmax() + 1  # from the labelled one
    chosen = fy.select_to_label(dataset, 1, weights={"uncertainty": 0, "balance": 0}, embeddings=vectors)
    assert chosen.samples == [dataset.values("id")[far]]
    assert fy.select_to_label(dataset, 2, model=lively_file).samples[0] in dataset.values("id")
    with pytest.raises(UserError, match="not both"):
        fy.select_to_label(dataset, 1, model=lively_file, embeddings="vector")
    dataset.set_values("filepath", {dataset.values("id")[2]: str(tmp_path / "gone.png")}, key_field="id")
    with pytest.raises(UserError, match=f"sample {dataset.values('id')[2]}: .*leave it out"):
        embed(dataset, lively_file, device="cpu")


def test_objects(dataset: Any) -> None:
    _, _, unsure, rare, _ = dataset.values("id")
    chosen = fy.select_to_label(dataset, 2, unit="objects", weights=ONLY_UNSURE)
    assert chosen.samples == [unsure, rare] and chosen.candidates == 4
    assert chosen.labels == [dataset[unsure].predictions.detections[0].id, dataset[rare].predictions.detections[1].id]
    tagged = dataset.select_labels(tags="to_label")
    assert tagged.values("predictions.detections.id") == [[i] for i in chosen.labels]
    fy.select_to_label(dataset, 1, unit="objects", weights=ONLY_UNSURE)
    assert dataset.count_label_tags() == {"to_label": 1} and dataset.count_sample_tags() == {"to_label": 1}


def test_a_mask_of_low_certainty_makes_an_object_uncertain(dataset: Any) -> None:
    sure = dataset.values("id")[1]
    sample = dataset[sure]
    sample.predictions.detections[0]["mask_certainty"] = 0.0
    sample.save()
    chosen = fy.select_to_label(dataset.select(sure), 1, weights=ONLY_UNSURE)
    assert chosen.picks[0].uncertainty == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget=0"),
        ({"budget": 2.5}, "budget=2.5"),
        ({"unit": "pixels"}, "choose images or objects"),
        ({"label_field": "nope"}, "no field 'nope'"),
        ({"label_field": "ground_truth"}, "a label has no confidence"),
        ({"embeddings": "nope"}, "no field 'nope' with embeddings"),
        ({"embeddings": "filepath"}, "vectors of one length"),
        ({"embeddings": np.zeros((2, 3))}, r"expected 5 rows of finite numbers.*\(2, 3\)"),
        ({"weights": {"speed": 1}}, "numbers for uncertainty, diversity, balance"),
        ({"weights": {"uncertainty": -1}}, "must not be negative"),
        ({"tag": " "}, "tag=' '"),
    ],
)
def test_refusals(dataset: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fy.select_to_label(dataset, **{"budget": 2, **options})
    assert dataset.count_sample_tags() == {}


def test_nothing_left_to_label(dataset: Any) -> None:
    with pytest.raises(UserError, match="nothing left to label"):
        fy.select_to_label(dataset.limit(1), 1)
    with pytest.raises(UserError, match="predict first"):
        fy.select_to_label(dataset.skip(4), 1, unit="objects")
