# %% [markdown]
# # Does choosing pay? Active learning against random choice
#
# Images are labelled in rounds. In one run `select_to_label` chooses the next ones - uncertain, unlike the rest, of rare classes -, in the other they are drawn by chance. Both
# train with the same settings after each round and are scored on the same held-out images.
#
# One run of each says little: differences of a few hundredths come and go with the seed. Raise SEEDS for an answer.

# %%
import os
import random
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fiftyone_yoloseg as fy

IMAGES = int(os.environ.get("RECIPE_IMAGES", 160))
EPOCHS = int(os.environ.get("RECIPE_EPOCHS", 40))
SEEDS = range(int(os.environ.get("RECIPE_SEEDS", 2)))
SIZES = [int(n) for n in os.environ.get("RECIPE_SIZES", "10,20,40,80").split(",")]

dataset = fy.synthetic_dataset("recipe-active", train=IMAGES, val=IMAGES // 4)
pool, held_out = dataset.match_tags("train"), dataset.match_tags("val")
truth = dict(zip(*pool.values(["id", "ground_truth"]), strict=True))


# %%
def learning_curve(choose, seed):
    """Mask mAP after each round. choose(run, n): ids of n images to label next."""
    scores = []
    labelled = random.Random(seed).sample(list(truth), SIZES[0])
    for size, following in zip(SIZES, [*SIZES[1:], None], strict=True):
        dataset.set_values("ground_truth", {i: truth[i] if i in labelled else None for i in truth}, key_field="id")
        known = pool.select(labelled)
        run = fy.train(
            known,
            model="yolov8n-seg.yaml",
            name=f"active-{size}",
            exist_ok=True,
            epochs=EPOCHS,
            imgsz=160,
            batch=8,
            seed=seed,
            val=False,
            plots=False,
        )
        scores.append(fy.validate(held_out, run.best).seg.map)
        if following:
            labelled += choose(run, following - size, seed)
    return scores


def by_the_model(run, n, seed):
    fy.predict(pool.exists("ground_truth", False), run.best, "predictions", overwrite=True)
    return fy.select_to_label(pool, n, model=run.best, seed=seed).samples


def by_chance(run, n, seed):
    return random.Random(seed).sample(pool.exists("ground_truth", False).values("id"), n)


curves = {
    name: np.array([learning_curve(choose, seed) for seed in SEEDS]) for name, choose in (("chosen", by_the_model), ("random", by_chance))
}

# %%
for name, scores in curves.items():
    print(name, dict(zip(SIZES, scores.mean(0).round(3).tolist(), strict=True)))
    plt.plot(SIZES, scores.mean(0), marker="o", label=name)
    plt.fill_between(SIZES, scores.min(0), scores.max(0), alpha=0.2)
plt.xlabel("labelled images")
plt.ylabel("mask mAP")
plt.legend()
picture = Path("active_learning.png").absolute()
plt.savefig(picture)
print(f"learning curves: {picture}")
