"""Locates a file of a Hugging Face repository.

`huggingface_hub` finds its address, size, hash and the user's login. The download is ours, so it is
resumed, reported and stored like any other.
"""

from __future__ import annotations

from webllm.artifacts.source import HubSource
from webllm.artifacts.transfer import RemoteFile
from webllm.errors import ConfigError, FetchError, ModelNotFoundError

_SHA256_DIGITS = 64


def locate(source: HubSource) -> RemoteFile:
    """Asks the hub for the file's address and size and, for large files, its hash.

    Raises ModelNotFoundError if the repository or file does not exist or is hidden from the user,
    FetchError if the hub cannot be reached or refuses, ConfigError without `huggingface_hub`.
    """
    try:
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
        found, token = hub.get_hf_file_metadata(url), hub.get_token()
    except errors.GatedRepoError as error:
        raise FetchError(
            f"{source} requires that you accept the licence on the page of {source.repository} and "
            f"log in (hf auth login): {_one_line(error)}"
        ) from error
    except missing as error:
        raise ModelNotFoundError(
            f"{source} does not exist, or needs a login (hf auth login): {_one_line(error)}"
        ) from error
    except Exception as error:  # depends on the HTTP library that huggingface_hub uses
        raise FetchError(
            f"{source} cannot be looked up: {_one_line(error)}; {_way_out(error)}"
        ) from error
    etag = found.etag or ""
    return RemoteFile(
        url,
        # The ETag is the SHA-256 of files in large-file storage, a git hash of others.
        sha256=source.sha256 or (etag if len(etag) == _SHA256_DIGITS else None),
        size=found.size,
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _way_out(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "log in (hf auth login), or accept the model's licence on its page"
    if status is not None:
        return "try again later"
    return "check the network and its proxies, or name a file on this disk"
