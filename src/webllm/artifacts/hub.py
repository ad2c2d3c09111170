"""Finds a file of a Hugging Face repository through `huggingface_hub`, then downloads it here.

The hub library knows the address, the user's login and the file's hash; the download itself is
ours, so that it is resumed, reported and stored like every other.
"""

import asyncio

from webllm.artifacts.fetch import RemoteFile, download
from webllm.artifacts.job import FetchJob
from webllm.artifacts.source import HubSource
from webllm.errors import ConfigError, FetchError, ModelNotFoundError

_SHA256_DIGITS = 64


async def fetch_hub(source: HubSource, job: FetchJob) -> str:
    """Download `source` into the job's partial file; returns its SHA-256 in hex.

    Raises what `download` raises, and ModelNotFoundError if there is no such repository or file
    (or the user may not see it).
    """
    job.reporter.update(f"Looking up {source}")
    return await download(await asyncio.to_thread(locate, source), job)


def locate(source: HubSource) -> RemoteFile:
    """Ask the hub where the file lies, how large it is and, for large files, its hash."""
    try:
        import httpx
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise ConfigError(f"{source} needs huggingface_hub; install webllm[native,hub]") from None
    missing = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.EntryNotFoundError,
    )
    try:
        url = hub.hf_hub_url(source.repository, source.filename, revision=source.revision)
        found = hub.get_hf_file_metadata(url)
    except missing as error:
        raise ModelNotFoundError(f"{source} does not exist, or needs a login: {error}") from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise FetchError(f"{source} cannot be looked up: {error}; try again later") from error
    etag, token = found.etag or "", hub.get_token()
    return RemoteFile(
        url,
        # The hub's ETag is the SHA-256 for files in large-file storage, a git hash for others.
        sha256=source.sha256 or (etag if len(etag) == _SHA256_DIGITS else None),
        size=found.size,
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )
