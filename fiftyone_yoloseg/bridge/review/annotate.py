"""Hand-over of pending objects to an editor: the App's own, or a server through FiftyOne's annotation API."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Literal

import fiftyone as fo

from ...engine.mask_scores import SCORES
from ...errors import DataError, UserError
from .. import runs
from ..provenance import PROVENANCE_FIELDS, REVIEW_FIELDS
from ..views import check_view
from .fields import FIELD, TRUTH, Fields, fields_of

Backend = Literal["app", "cvat", "labelstudio"]
VIEW = "yoloseg review"
"""Name of the saved view that opens in the App."""
_NEEDED: Mapping[str, tuple[str, ...]] = {"cvat": ("url", "username", "password"), "labelstudio": ("url", "api_key")}
_SECONDS = 5.0


def annotate(
    view: Any, backend: Backend = "app", field: str = FIELD, *, gt_field: str = TRUTH, anno_key: str = "yoloseg_review", **options: Any
) -> Any:
    """Open the pending objects of a view in an editor.

    backend: "app" saves and returns the view "yoloseg review" of the samples with pending objects, and makes the field editable in the App (an active label
    schema with the classes of both fields), whose mask editor changes the objects in place. "cvat" and "labelstudio" upload them by `view.annotate(anno_key, ...)` as instances and return its results; get the edits back with
    `dataset.load_annotations(anno_key)`. options: of `view.annotate`, such as url, username, password, api_key, classes, task_size.
    Raises UserError where there is nothing pending, no credentials are configured, no server answers or refuses, or a package is missing.
    """
    check_view(view)
    fields = fields_of(view._dataset, field, gt_field, must_exist=True)
    waiting = view.match(fo.ViewField(f"{fields.pending}.detections").length() > 0)
    if not len(waiting):
        raise DataError(f"no sample of this view has an object in '{field}'")
    if backend == "app":
        if options:
            raise UserError(f"backend='app' takes no {', '.join(options)}")
        _make_editable(view._dataset, fields)
        view._dataset.save_view(VIEW, waiting, description=f"objects in '{field}' that wait for a decision", overwrite=True)
        return waiting
    if backend not in _NEEDED:
        raise UserError(f"backend={backend!r}: choose from app, {', '.join(_NEEDED)}")
    runs.check_name(anno_key)
    if anno_key in view._dataset.list_annotation_runs():
        raise UserError(f"anno_key={anno_key!r}: there is such an annotation run: load it and delete it, or give another anno_key")
    _check_server(backend, options)
    try:
        # provenance stays here: what a server does not know it cannot change
        settings = {"label_type": "instances", "attributes": False, **options}
        return waiting.annotate(anno_key, label_field=field, backend=backend, **settings)
    except Exception as error:  # whatever the server or its client says: a person must read it
        if anno_key in view._dataset.list_annotation_runs():  # FiftyOne registers it before it uploads
            view._dataset.delete_annotation_run(anno_key)
        if isinstance(error, ImportError):
            raise UserError(f"backend={backend!r} needs a package that is not installed: {error}") from None
        raise UserError(f"{backend} did not take the objects: {type(error).__name__}: {error}") from error


def _make_editable(dataset: Any, fields: Fields) -> None:
    """The App edits only fields that have an active label schema. One that a person made stays as it is."""
    if fields.pending not in dataset.label_schemas:
        schema = dataset.generate_label_schemas(fields.pending)
        # what the model and this tool say of an object is not for a person to fill in
        schema["attributes"] = [a for a in schema["attributes"] if a["name"] not in (*PROVENANCE_FIELDS, *REVIEW_FIELDS, *SCORES)]
        known = set(schema.get("classes") or ())
        for name in (fields.pending, fields.truth):
            if dataset.get_field(name) is not None:
                known |= set(dataset.distinct(f"{name}.detections.label"))
        schema |= {"classes": sorted(known), "component": "dropdown"}
        dataset.update_label_schema(fields.pending, schema)
    dataset.activate_label_schemas(fields.pending)


def _check_server(backend: str, options: Mapping[str, Any]) -> None:
    """FiftyOne would ask for missing credentials on the terminal, which the App's server does not have."""
    configured = fo.annotation_config.backends.get(backend, {})
    found = {name: options.get(name) or configured.get(name) or os.environ.get(_variable(backend, name)) for name in _NEEDED[backend]}
    missing = [name for name, value in found.items() if not value]
    if missing:
        raise UserError(
            f"backend={backend!r}: no {', '.join(missing)} configured: give {', '.join(f'{m}=' for m in missing)}, or set "
            + ", ".join(_variable(backend, m) for m in missing)
        )
    url = str(found["url"])
    if not url.startswith(("http://", "https://")):
        raise UserError(f"backend={backend!r}: url={url!r} must begin with http:// or https://")
    try:
        urllib.request.urlopen(url, timeout=_SECONDS).close()
    except urllib.error.HTTPError:  # it answers; what it wants is for its client to find out
        return
    except (OSError, ValueError) as error:
        raise UserError(f"backend={backend!r}: no server answers at {url}: {getattr(error, 'reason', error)}") from None


def _variable(backend: str, name: str) -> str:
    return f"FIFTYONE_{backend.upper()}_{name.upper()}"
