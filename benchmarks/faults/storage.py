"""Take the room away that the outbox writes to."""

import os
import subprocess

from mp_asgi.dev import Fault

from .producer import FILE_BYTES
from .stage import Stage

ROOM_BYTES = 1_000_000  # at full scale
PADDING = {"text": ["x" * 200] * 15}  # a thousand of them need three times the room


def fill_disk(stage: Stage) -> None:
    """Track more than the disk holds while Mixpanel is down; the process lives on."""
    stage.serve_mixpanel()
    stage.standin.misbehave(Fault.UNAVAILABLE, None)
    producer = stage.start_producer(**_take_room(stage))
    stage.track(producer, properties=PADDING)
    stage.standin.behave()
    failures = stage.finish(producer)["other"].get("outbox_failed", 0)
    assert failures, "The disk did not get full."


def _take_room(stage: Stage) -> dict[str, str]:
    """Answer variables for a process whose state directory has little room."""
    room = round(ROOM_BYTES * stage.scale)
    if os.geteuid():
        stage.notes.append("by RLIMIT_FSIZE")
        return {FILE_BYTES: str(room)}
    state = str(stage.directory / "state")
    options = ["-t", "tmpfs", "-o", f"size={room},mode=700", "tmpfs"]
    subprocess.run(["/bin/mount", *options, state], check=True)
    stage.on_close(lambda: subprocess.run(["/bin/umount", "--lazy", state], check=True))
    stage.notes.append(f"a tmpfs of {room / 1e6:g} MB")
    return {}
