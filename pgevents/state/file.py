"""The watermark in a file, replaced as a whole and synced: after a crash it holds the old one or the new one."""

import threading
from datetime import UTC, datetime
from pathlib import Path

from pgevents import disk
from pgevents.errors import StateError, StateRefused, StateUnavailable
from pgevents.state.document import read, written
from pgevents.watermark import Watermark, overtaken


class FileState:
    """A file of one watermark."""

    # A file costs no WAL: an idle slot moves on at once.
    idle_interval_s = 0.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()

    def load(self) -> Watermark | None:
        """The watermark, None where there is no file. Blocks; raises StateError."""
        try:
            if self._path.exists() and not self._path.is_file():
                raise StateRefused(f"{self._path} is no regular file", hint="--state names another one.")
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault(error, self._path) from error
        return read(text, str(self._path))

    def save(self, watermark: Watermark) -> None:
        """Returns once ``watermark`` would survive a crash. Blocks; raises StateError, and the old one then stays."""
        if not self._writing.acquire(blocking=False):
            # Two at once could leave the older of two watermarks.
            raise StateUnavailable(
                f"an earlier write to {self._path} has not ended", hint="Look at the disk it is on."
            )
        try:
            kept = self.load()
            if kept is not None and not watermark.follows(kept):
                raise overtaken(watermark.slot)
            saved_at = datetime.now(UTC).isoformat(timespec="milliseconds")
            disk.replace(self._path, written(watermark, saved_at=saved_at))
        except OSError as error:
            raise _fault(error, self._path) from error
        finally:
            self._writing.release()

    def close(self) -> None:
        """Nothing is held open."""

    def __str__(self) -> str:
        return str(self._path)


def _fault(error: OSError, path: Path) -> StateError:
    kind = StateUnavailable if disk.may_pass(error) else StateRefused
    hint = f"{disk.advice(error)} --state names another file.".strip()
    return kind(f"cannot keep the watermark in {path}: {disk.words(error)}", hint=hint)
