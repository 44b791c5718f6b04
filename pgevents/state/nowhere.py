"""The watermark in memory alone: a gap is noticed as long as this process lives."""

from pgevents.watermark import Watermark


class NoState:
    """Keeps nothing beyond this process: for ``--state none`` and dry runs."""

    idle_interval_s = 0.0

    def __init__(self) -> None:
        self._watermark: Watermark | None = None

    def load(self) -> Watermark | None:
        return self._watermark

    def save(self, watermark: Watermark) -> None:
        self._watermark = watermark

    def close(self) -> None:
        """Nothing is held open."""

    def __str__(self) -> str:
        return "nowhere"
