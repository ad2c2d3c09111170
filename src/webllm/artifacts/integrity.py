"""The hashes that a model's record promises of its small files (Subresource Integrity, W3C)."""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from webllm.artifacts.checkpoint import Files
from webllm.errors import ConfigError, IntegrityError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Integrity:
    """Hashes by the names of files: "sha256-", "sha384-" or "sha512-" and base64."""

    hashes: Mapping[str, str]
    is_error: bool = True  # else a wrong one is logged

    async def verify(self, names: Collection[str], files: Files) -> None:
        """Compares the hashes of open files, called `names`.

        Raises IntegrityError for a wrong one, ConfigError for a file that the model does not have.
        """
        for name, expected in self.hashes.items():
            if name not in names:
                raise ConfigError(
                    f"integrity has a hash of {name!r}, which is not among the files of the model: "
                    f"{', '.join(names)}; leave it out (sha256 is the hash of a single file)"
                )
            kind = expected.partition("-")[0]
            data = await files.load(name, 0, files.size(name))
            actual = f"{kind}-{b64encode(hashlib.new(kind, data).digest()).decode()}"
            if actual == expected:
                continue
            message = (
                f"{name} has the hash {actual}, but integrity promises {expected}; delete the "
                "stored model and load it again, or correct its record"
            )
            if self.is_error:
                raise IntegrityError(message, name, expected, actual)
            _log.warning("%s", message)
