"""The web pages of a git repository: of a commit, and of what changed between two."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.core.errors import InputError
from bench.core.git import run_git

HASH = re.compile(r"[0-9a-f]{7,64}")
PATH = re.compile(r"/[\w.~-]+(?:/[\w.~-]+)+", re.ASCII)
SCP_REMOTE = re.compile(r"(?:[\w.-]+@)?(?P<host>[\w.-]+):(?P<path>[^/:][^:]*)", re.ASCII)  # git@host:owner/name
KNOWN_HOST = re.compile(r"(?:github|gitlab)\.[a-z0-9.-]+")


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository with web pages. `address` is that of its start page, without a slash at its end."""

    address: str

    def commit_page(self, commit: str) -> str:
        """The address of a commit's page; empty if `commit` is not a hash."""
        return f"{self.address}{self._infix}/commit/{commit}" if HASH.fullmatch(commit) else ""

    def changes_page(self, before: str, after: str) -> str:
        """The address of the page of what changed from one commit to another; empty if one is not a hash."""
        known = HASH.fullmatch(before) and HASH.fullmatch(after)
        return f"{self.address}{self._infix}/compare/{before}...{after}" if known else ""

    @property
    def _infix(self) -> str:
        """GitLab puts a dash between a project, which may be in groups, and its own pages."""
        return "/-" if "gitlab" in str(urlsplit(self.address).hostname) else ""


def given_repository(address: str) -> Repository:
    """The repository at an address that the user gives; raises InputError unless it is a plain http(s) address."""
    try:
        parts = urlsplit(address)
        is_plain = parts.hostname is not None and not (parts.query or parts.fragment or "@" in parts.netloc)
        has_port = parts.port is None or parts.port > 0
    except ValueError:  # such as of a port that is no number
        is_plain = has_port = False
    path = parts.path.rstrip("/").removesuffix(".git") if is_plain else ""
    if not (is_plain and has_port and parts.scheme in ("https", "http") and PATH.fullmatch(path)):
        what = "is not the web address of a repository, without a user name, such as https://github.com/owner/name"
        raise InputError(f"--repository: {address!r} {what}")
    return Repository(address=f"{parts.scheme}://{parts.netloc}{path}")


def remote_repository(folder: Path) -> Repository | None:
    """The repository that git in `folder` has as its remote `origin`, if that is on GitHub or GitLab; else None."""
    try:
        answer = run_git("remote", "get-url", "origin", folder=folder)
    except OSError:  # git is not installed, or does not answer
        return None
    return repository_of(answer.stdout.strip()) if answer.returncode == 0 else None


def repository_of(remote: str) -> Repository | None:
    """The repository of an https or ssh remote of GitHub or GitLab, without its login; None for any other."""
    scp = SCP_REMOTE.fullmatch(remote)
    try:
        parts = urlsplit(f"ssh://{scp['host']}/{scp['path']}" if scp else remote)
        host = parts.hostname or ""
        # A port of ssh is not that of the web pages.
        place = f"{host}:{parts.port}" if parts.port and parts.scheme == "https" else host
    except ValueError:
        return None
    path = parts.path.rstrip("/").removesuffix(".git")
    if parts.scheme not in ("https", "ssh") or not KNOWN_HOST.fullmatch(host) or not PATH.fullmatch(path):
        return None
    return Repository(address=f"https://{place}{path}")
