"""The actor through which workers and the process that started them talk. Without torch: it has a process of its own, which starts the sooner."""

from __future__ import annotations


class Post:
    """What the workers have to say, as bytes, which are not opened here; and whether they shall stop."""

    def __init__(self) -> None:
        self._letters: list[tuple[str, bytes]] = []
        self._stop: bool | str = False

    def put(self, kind: str, content: bytes) -> None:
        self._letters.append((kind, content))

    def stop(self) -> bool | str:
        return self._stop

    def take(self, stop: bool | str) -> list[tuple[str, bytes]]:
        self._stop = stop
        letters, self._letters = self._letters, []
        return letters
