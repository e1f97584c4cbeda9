"""`python -m fiftyone_yoloseg` is the `yoloseg` command."""

from .cli import main

main()
