# %% [markdown]
# # Labeling with the model in the loop: from a few labelled images to a labelled dataset
#
# A person labels ten images. A model is trained on them, chooses the images that it would learn most from, and proposes their objects; the person accepts, corrects or
# rejects, and the next round begins. What counts is how many objects the person had to touch.
#
# The person is simulated here, by the known truth. With a real person, the cell "a person decides" is the App: see docs/review.md.

# %%
import os
from collections import Counter

import fiftyone as fo
from fiftyone.utils.iou import compute_ious

import fiftyone_yoloseg as fy

IMAGES = int(os.environ.get("RECIPE_IMAGES", 160))
EPOCHS = int(os.environ.get("RECIPE_EPOCHS", 40))
START = 10

dataset = fy.synthetic_dataset("recipe-labeling", train=IMAGES, val=IMAGES // 4)
pool, held_out = dataset.match_tags("train"), dataset.match_tags("val")
truth = {sample.id: sample.ground_truth for sample in pool}
dataset.set_values("ground_truth", dict.fromkeys(pool.skip(START).values("id")), key_field="id")

# %% [markdown]
# A person decides. A proposal whose mask has an IoU of 0.8 or more with an object of its class is good enough. One with 0.5 or more is corrected: class and mask are set, as
# the App's editor does. What nobody proposed is drawn. All other proposals are rejected.


# %%
def person(view):
    """Returns how many objects were accepted as they are, corrected, drawn and rejected."""
    counts = Counter()
    wrong = []
    for sample in view:
        left = list(sample.review.detections) if sample.review else []
        drawn = []
        for object_ in truth[sample.id].detections:
            ious = compute_ious(left, [object_], use_masks=True)[:, 0] if left else []
            if max(ious, default=0) < 0.5:
                drawn.append(object_.copy())
                continue
            proposal = left.pop(int(ious.argmax()))
            good = max(ious) >= 0.8 and proposal.label == object_.label
            counts["accepted" if good else "corrected"] += 1
            if not good:
                proposal.label, proposal.bounding_box, proposal.mask = object_.label, object_.bounding_box, object_.mask
        counts["drawn"] += len(drawn)
        counts["rejected"] += len(left)
        wrong += [proposal.id for proposal in left]
        sample.review = sample.review or fo.Detections()
        sample.review.detections += drawn
        sample.save()
    fy.review.reject(view, wrong)
    fy.review.accept(view)
    return counts


# %% [markdown]
# The loop. Each round labels as many images as there are labelled ones already; the model is trained anew on all of them.

# %%
labelled, touched = START, sum(len(t.detections) for t in list(truth.values())[:START])
while True:
    done = pool.exists("ground_truth")
    run = fy.train(
        done,
        name=f"labeling-{labelled}",
        exist_ok=True,
        model="yolov8n-seg.yaml",
        epochs=EPOCHS,
        imgsz=160,
        batch=8,
        val=False,
        plots=False,
    )
    score = fy.validate(held_out, run.best).seg.map
    print(f"{labelled} images labelled, {touched} objects touched by the person; mask mAP {score:.3f}")
    if labelled >= IMAGES:
        break
    rest = pool.exists("ground_truth", False)
    fy.predict(rest, run.best, "predictions")
    chosen = fy.select_to_label(pool, min(labelled, IMAGES - labelled), model=run.best)
    view = dataset.select(chosen.samples)
    fy.review.prelabel(view, run.best)
    counts = person(view)
    print(", ".join(f"{n} {what}" for what, n in counts.items()))
    labelled += len(chosen.samples)
    touched += counts["corrected"] + counts["drawn"] + counts["rejected"]

# %%
total = sum(len(t.detections) for t in truth.values())
print(f"{total} objects labelled; the person touched {touched} of them ({touched / total:.0%})")
print(fy.review.status(pool).table())
