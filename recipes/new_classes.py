# %% [markdown]
# # Fine-tune a checkpoint on new classes
#
# You have a model of discs and squares, and now there are rings. Starting from the checkpoint keeps all weights that fit, those of known classes included, and says what
# does not fit.

# %%
import os

from fiftyone import ViewField as F

import fiftyone_yoloseg as fy

IMAGES = int(os.environ.get("RECIPE_IMAGES", 160))
EPOCHS = int(os.environ.get("RECIPE_EPOCHS", 30))
small = {"imgsz": 160, "batch": 8, "val": False, "plots": False, "exist_ok": True}

dataset = fy.synthetic_dataset("recipe-classes", train=IMAGES, val=IMAGES // 4)
train, held_out = dataset.match_tags("train"), dataset.match_tags("val")

# %% [markdown]
# The old model knows two classes. In your case it is a `best.pt`, of ours or in the official YOLOv8-seg format.

# %%
old_data = train.filter_labels("ground_truth", F("label") != "ring")
old = fy.train(old_data, model="yolov8n-seg.yaml", name="two-classes", epochs=EPOCHS, **small)

# %% [markdown]
# A few images with the new class are enough to go on from it. `notes` says what was taken over.

# %%
few, few_epochs = train.take(IMAGES // 4, seed=1), max(1, EPOCHS // 2)
small["classes"] = dataset.default_classes  # also those that are in none of the few images
notes: list[str] = []
tuned = fy.train(few, model=old.best, name="three-classes", epochs=few_epochs, notes=notes, **small)
print(*notes, sep="\n")

# %% [markdown]
# The same budget from random weights, to compare with.

# %%
scratch = fy.train(few, model="yolov8n-seg.yaml", name="from-scratch", epochs=few_epochs, **small)
for what, run in (("from the old checkpoint", tuned), ("from random weights", scratch)):
    scores = fy.validate(held_out, run.best).seg
    print(f"{what}: mask mAP {scores.map:.3f}", dict(zip(dataset.default_classes, scores.maps.round(3).tolist(), strict=True)))
