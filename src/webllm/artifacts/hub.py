"""Locates the files of a Hugging Face repository.

`huggingface_hub` finds their addresses, sizes, hashes and the user's login. The download is ours,
so it is resumed, reported and stored like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from webllm.artifacts.files import FileSpec
from webllm.artifacts.remote_folder import Listing
from webllm.artifacts.source import HubSource
from webllm.artifacts.transfer import RemoteFile
from webllm.errors import ConfigError, FetchError, ModelNotFoundError

_SHA256_DIGITS = 64


def locate(source: HubSource) -> RemoteFile:
    """Asks the hub for the file's address and size and, for large files, its hash.

    Raises ModelNotFoundError if the repository or file does not exist or is hidden from the user,
    FetchError if the hub cannot be reached or refuses, ConfigError without `huggingface_hub`.
    """
    file = address(source)
    with _errors(source):
        import huggingface_hub as hub

        found = hub.get_hf_file_metadata(file.url)
    etag = found.etag or ""
    # The ETag is the SHA-256 of files in large-file storage, a git hash of others.
    sha256 = source.sha256 or (etag if len(etag) == _SHA256_DIGITS else None)
    return replace(file, sha256=sha256, size=found.size)


def address(source: HubSource) -> RemoteFile:
    """Returns the file's address, with the user's login, without asking the hub.

    Raises ConfigError without `huggingface_hub`.
    """
    with _errors(source):
        import huggingface_hub as hub

        url = hub.hf_hub_url(source.repository, source.filename, revision=source.revision)
        token = hub.get_token()
    return RemoteFile(url, headers={"Authorization": f"Bearer {token}"} if token else {})


def list_files(source: HubSource) -> Listing:
    """Asks the hub for the files of the source's repository; raises what `locate` raises."""
    with _errors(source):
        import huggingface_hub as hub

        found = hub.HfApi().model_info(
            source.repository, revision=source.revision, files_metadata=True
        )
    files = [
        FileSpec(each.rfilename, each.size, each.lfs.sha256 if each.lfs else None)
        for each in found.siblings or ()
    ]
    return Listing(found.sha or source.revision or "main", {each.name: each for each in files})


@contextmanager
def _errors(source: HubSource) -> Iterator[None]:
    """Raises the errors of `huggingface_hub` as ours."""
    try:
        from huggingface_hub import errors
    except ImportError:
        raise ConfigError(f"{source} needs huggingface_hub; install webllm[native,hub]") from None
    missing = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.EntryNotFoundError,
    )
    try:
        yield
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _way_out(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "log in (hf auth login), or accept the model's licence on its page"
    if status is not None:
        return "try again later"
    return "check the network and its proxies, or name a file on this disk"
