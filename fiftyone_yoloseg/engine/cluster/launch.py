"""Starts the processes of a training as the workers of Ray Train's TorchTrainer, and follows them.

The counterpart of `engine.launch`: the same task, the same messages. They go through an actor on the cluster, which the process that the user started
empties. Ray sets up the process group and ends all workers when one fails.
"""

from __future__ import annotations

import logging
import socket
import tempfile
import threading
from typing import Any

from ...errors import ProcessError, Stopped, UserError
from ..devices import select_device
from ..distributed import TIMEOUT, Processes, only_main_speaks
from ..launch import DONE, FAILED, LOG, Failure, Handle, Link, Task, ToParent, error_of, failure_of
from .connect import Room, await_room
from .post import Post

ours = logging.getLogger("fiftyone_yoloseg")
_PAUSE = 0.05
"""Seconds between two looks into the post."""


class RayLink(Link):
    """From a worker to the post."""

    def __init__(self, post: Any) -> None:
        import ray

        self._ray, self._post, self._question = ray, post, None
        self._stop: bool | str = False

    def tell(self, kind: str, value: Any = None) -> None:
        self._post.put.remote(kind, self._ray.cloudpickle.dumps(value))

    def say(self, record: logging.LogRecord) -> None:
        self.tell(LOG, record)

    def ask(self, kind: str, value: Any = None) -> Any:
        """Whether to stop, as it was known a moment ago: no step waits for the answer. Ends the training if the one who asked for it is gone."""
        assert kind == "stop"
        self._question = self._question or self._post.stop.remote()
        ready, _ = self._ray.wait([self._question], timeout=0)
        if ready:
            self._stop, self._question = self._ray.get(ready[0]), None
        return self._stop

    def last(self, kind: str, value: Any) -> None:
        """As `tell`, and wait until it is there."""
        self._ray.get(self._post.put.remote(kind, self._ray.cloudpickle.dumps(value)))


def launch(ray: Any, room: Room, task: Task, argument: Any, handle: Handle) -> Any:
    """Run `task(world, link, argument)` in each of `room.workers` workers; what it returns in the first one is returned.

    handle: gets what the workers tell, and answers "stop" at every look. Raises the UserError of a worker that failed, ProcessError for any other failure, and
    Stopped if that is asked for while others use the cluster and nothing has begun.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    post = ray.remote(num_cpus=0)(Post).remote()
    given = {"post": post, "work": [ray.put((task, argument))], "device": room.device, "level": ours.getEffectiveLevel()}
    failed: list[Failure] = []
    ended: list[BaseException | None] = []
    result: Any = None
    with tempfile.TemporaryDirectory(prefix="yoloseg-ray-") as folder:  # Ray wants one; we report no checkpoints to it
        trainer = TorchTrainer(
            _run,
            train_loop_config=given,
            torch_config=TorchConfig(backend="nccl" if room.gpu else "gloo", timeout_s=int(TIMEOUT.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=room.workers, use_gpu=room.gpu, resources_per_worker={"CPU": room.cpus, **({"GPU": 1} if room.gpu else {})}
            ),
            run_config=RunConfig(name="yoloseg", storage_path=folder, failure_config=FailureConfig(max_failures=0)),
        )

        def fit() -> None:
            try:
                trainer.fit()
                ended.append(None)
            except BaseException as error:  # noqa: BLE001 - it is judged below, in the thread that can raise it
                ended.append(error)

        def say(text: str) -> None:
            ours.info("%s", text)
            handle("progress", (0.0, text))

        waits = await_room(ray, room, say)
        fitting = threading.Thread(target=fit, daemon=True)  # signals are ours, not Ray's: it would catch them in the main thread
        fitting.start()
        try:
            while True:
                over, stop = not fitting.is_alive(), handle("stop", None)
                letters = ray.get(post.take.remote(stop))
                waits = waits and not letters
                if waits and stop:
                    raise Stopped("stopped while it waited for the Ray cluster: nothing was begun")
                for kind, content in letters:
                    value = ray.cloudpickle.loads(content)
                    if kind == DONE:
                        result = value
                    elif kind == FAILED:
                        failed.append(value)
                    elif kind == LOG:
                        logging.getLogger(value.name).handle(value)
                    else:
                        handle(kind, value)
                if over:
                    break
                fitting.join(_PAUSE)
        except ray.exceptions.RayActorError:
            raise ProcessError(
                "the machine through which the workers report was lost; train on with resume=true model=<run>/weights/last.pt"
            ) from None
        finally:
            ray.kill(post)  # workers that are still there end when they ask it next
    if failed or ended[0] is not None:
        raise _cause(failed, ended[0], room)
    return result


def _cause(told: list[Failure], error: BaseException | None, room: Room) -> UserError:
    """What the workers have told of themselves, or what Ray says of one that could not."""
    if any(not f.lost for f in told):
        return error_of(told)
    silent = sorted(getattr(error, "worker_failures", {}).keys() - {f.rank for f in told})
    if silent:
        return ProcessError(
            f"process {silent[0]} of {room.workers} on the Ray cluster has died (killed, out of memory, or its machine was lost); the others were ended"
        )
    ours.debug("%s", error)
    if told:
        return error_of(told)
    return ProcessError(f"Ray could not run the training: {(str(error).strip().splitlines() or [type(error).__name__])[-1][:300]}")


def _run(given: dict[str, Any]) -> None:
    """The life of a worker."""
    import ray

    context, link = ray.train.get_context(), RayLink(given["post"])
    rank, size = context.get_world_rank(), context.get_world_size()
    ours.setLevel(given["level"])
    ours.propagate = False
    handler = ToParent(link)
    if rank == 0:
        ours.addHandler(handler)
    try:
        device = str(ray.train.torch.get_device()) if given["device"] == "cuda" else "cpu"
        task, argument = ray.get(given["work"][0])
        world = Processes(select_device(device), rank, size, context.get_local_world_size())
        with only_main_speaks(world):
            result = task(world, link, argument)
        if rank == 0:
            link.last(DONE, result)
    except BaseException as error:  # noqa: BLE001 - whatever ends this worker, the one who waits must hear of it
        link.last(FAILED, failure_of(rank, size, f"{given['device']} on {socket.gethostname()}", error))
        raise SystemError("a process of this training has failed; it has told why") from None
    finally:
        ours.removeHandler(handler)
