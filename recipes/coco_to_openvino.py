# %% [markdown]
# # From COCO json to a deployed OpenVINO model
#
# You have images and a COCO json with instances, and want masks on a machine that has neither FiftyOne nor torch's training code to run.

# %%
import os
import tempfile
from pathlib import Path

import cv2
import fiftyone as fo

import fiftyone_yoloseg as fy

IMAGES = int(os.environ.get("RECIPE_IMAGES", 160))
EPOCHS = int(os.environ.get("RECIPE_EPOCHS", 30))

# %% [markdown]
# Your data is a folder of images and a json. Here we write one.

# %%
folder = Path(tempfile.mkdtemp())
fy.synthetic_dataset("recipe-coco-source", train=IMAGES, val=0).export(
    str(folder), dataset_type=fo.types.COCODetectionDataset, label_field="ground_truth", tolerance=0
)

# %% [markdown]
# Into FiftyOne, and a look at what is wrong with it before anything is trained: missing files, double objects, masks outside of their boxes.

# %%
if fo.dataset_exists("recipe-coco"):
    fo.delete_dataset("recipe-coco")
dataset = fo.Dataset.from_dir(
    str(folder), fo.types.COCODetectionDataset, name="recipe-coco", label_types="segmentations", label_field="ground_truth", persistent=True
)
checked = fy.check(dataset, "ground_truth")
print(checked.summary())

# %% [markdown]
# Train, with a fifth of the images drawn for validation, and look at the predictions in the App: `fiftyone app launch recipe-coco`.

# %%
run = fy.train(dataset, model="yolov8n-seg.yaml", val=0.2, name="coco", exist_ok=True, epochs=EPOCHS, imgsz=160, batch=8)
written = fy.predict(dataset, run.best, "predictions")
print(f"{written.objects} objects predicted in {written.images} images; mask mAP {run.metrics.seg.map:.3f}")

# %% [markdown]
# Export. The artifact is compared with the network on images before it gets its name; one that answers differently is refused.

# %%
artifact = fy.YOLO(run.best).export(format="openvino")
print(artifact)

# %% [markdown]
# Deployed: the folder is all that the other machine needs, beside `fiftyone-yoloseg[openvino]`. Any size of image goes in, masks in the image's own pixels come out.

# %%
image = dataset.first().filepath
result = fy.YOLO(artifact)(image, conf=0.25)[0]
picture = folder / "masks.jpg"
cv2.imwrite(str(picture), result.plot())
print(f"{len(result)} objects in {Path(image).name}, drawn in {picture}")
