"""Makes the pictures of docs/images from the browser tests' own screenshots: `python docs/make_pictures.py`, which runs those tests; with `kept`, of their last run.

step-*: the walk of quickstart.md. operators/*: the form of each, for operators.md. panel-*: the tabs of the panel, on example runs. app: what `yoloseg demo` has
made. All are kept as small palette images. It takes ten minutes, most of them for the trainings of the walk and the demo.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

REPO = Path(__file__).resolve().parents[1]
SHOTS = REPO / ".artifacts" / "screenshots"
OUT = Path(__file__).with_name("images")
TESTS = ("tests/e2e/test_first_steps.py", "tests/e2e/test_forms.py")
PLACES = {"step-": "step-", "form-": "operators/", "tab-Compare": "panel-compare", "tab-Evaluation": "panel-evaluation", "front": "app"}
"""How names of screenshots begin, and of pictures."""
COLOURS, LARGEST, WIDEST = 256, 115_000, 1120
"""Of a picture: colours, bytes, pixels."""


def main(kept: bool) -> None:
    if not kept:
        subprocess.run([sys.executable, "-m", "pytest", "-n", "0", *TESTS], cwd=REPO, check=True)
        front()
    for shot in sorted(SHOTS.glob("*.png")):
        for begin, place in PLACES.items():
            if shot.stem.startswith(begin):
                print(keep(shot, OUT / f"{place}{shot.stem.removeprefix(begin).lower()}.png"))


def front() -> None:
    """The screenshot "front": predictions of the demo's validation images, and their evaluation in the panel."""
    sys.path.append(str(REPO / "tests" / "e2e"))
    from app import browsing, serving

    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server, browsing(SHOTS) as app:
        app.go(server.make("demonstrated", "yoloseg-demo", Path(folder) / "demo", seconds=1200) + "?view=validation")
        app.open_panel()
        app.tab("Evaluation")
        app.sees("Click a cell to see its objects.")
        app.shot("front", 15_000)  # for all masks to be drawn


def keep(shot: Path, target: Path) -> str:
    """Store a picture with few colours, narrower if it is too large; that of the front page may be larger. Returns what was written."""
    largest = 3 * LARGEST if shot.stem == "front" else LARGEST
    image = Image.open(shot).convert("RGB")
    target.parent.mkdir(parents=True, exist_ok=True)
    width = min(image.width, WIDEST)
    while True:
        smaller = (
            image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS) if width < image.width else image
        )
        # by octree: the median cut of an App in grey loses the few pixels of a curve
        smaller.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size <= largest:
            return f"{target.relative_to(REPO)}: {target.stat().st_size / 1e3:.0f} kB, {smaller.width} x {smaller.height}"
        width = width * 9 // 10


if __name__ == "__main__":
    main("kept" in sys.argv[1:])
