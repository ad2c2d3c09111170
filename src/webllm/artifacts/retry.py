"""Pauses between attempts: exponential backoff with jitter, and the Retry-After header."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Number of attempts in a row without a new byte, and the pauses between them in seconds."""

    attempts: int = 6
    unreached_attempts: int = 6  # at a server that has not answered once
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    max_retry_after_s: float = 120.0  # if a server asks for more, the download fails

    def pause_s(self, failures: int) -> float:
        """The pause after failure 1, 2, …: doubled each time, less a random part of its half."""
        pause = min(self.longest_pause_s, self.first_pause_s * 2.0 ** (failures - 1))
        return pause * random.uniform(0.5, 1.0)


def retry_after_s(value: str | None) -> float | None:
    """Seconds in a Retry-After header (RFC 9110, 10.2.3); None if it is absent or malformed."""
    if value is None:
        return None
    if re.fullmatch(r"\s*[0-9]+\s*", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None
