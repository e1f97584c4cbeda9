"""Makes the pictures of docs/images from the browser tests' own screenshots: `python docs/make_pictures.py`, which runs those tests; with `kept`, of their last run.

step-*: the walk of quickstart.md. operators/*: the form of each, for operators.md. panel-*: the tabs of the panel, on example runs. All are kept as small
palette images. It takes some minutes, most of them for the training of the walk.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

REPO = Path(__file__).resolve().parents[1]
SHOTS = REPO / ".artifacts" / "screenshots"
OUT = Path(__file__).with_name("images")
TESTS = ("tests/e2e/test_first_steps.py", "tests/e2e/test_forms.py")
PLACES = {"step-": "step-", "form-": "operators/", "tab-Compare": "panel-compare", "tab-Evaluation": "panel-evaluation"}
"""How names of screenshots begin, and of pictures."""
COLOURS, LARGEST, WIDEST = 256, 115_000, 1120
"""Of a picture: colours, bytes, pixels."""


def main(kept: bool) -> None:
    if not kept:
        subprocess.run([sys.executable, "-m", "pytest", "-n", "0", *TESTS], cwd=REPO, check=True)
    for shot in sorted(SHOTS.glob("*.png")):
        for begin, place in PLACES.items():
            if shot.stem.startswith(begin):
                print(keep(shot, OUT / f"{place}{shot.stem.removeprefix(begin).lower()}.png"))


def keep(shot: Path, target: Path) -> str:
    """Store a picture with few colours, narrower if it is too large. Returns what was written."""
    image = Image.open(shot).convert("RGB")
    target.parent.mkdir(parents=True, exist_ok=True)
    width = min(image.width, WIDEST)
    while True:
        smaller = (
            image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS) if width < image.width else image
        )
        # by octree: the median cut of an App in grey loses the few pixels of a curve
        smaller.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size <= LARGEST:
            return f"{target.relative_to(REPO)}: {target.stat().st_size / 1e3:.0f} kB, {smaller.width} x {smaller.height}"
        width = width * 9 // 10


if __name__ == "__main__":
    main("kept" in sys.argv[1:])
