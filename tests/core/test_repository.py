"""Addresses of commits: from git's remote or from the user, never with a login or of another scheme."""

import subprocess
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.core.repository import Repository, given_repository, remote_repository, repository_of

COMMIT, LATER = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/owner/name.git", "https://github.com/owner/name"),
        ("https://github.com/owner/name/", "https://github.com/owner/name"),
        ("https://user:ghp_secret@github.com/owner/name", "https://github.com/owner/name"),
        ("https://oauth2:token@gitlab.example.org:8443/group/sub/name.git", "https://gitlab.example.org:8443/group/sub/name"),
        ("git@github.com:owner/name.git", "https://github.com/owner/name"),
        ("ssh://git@gitlab.com:2222/group/name.git", "https://gitlab.com/group/name"),
        ("http://github.com/owner/name", None),
        ("git://github.com/owner/name", None),
        ("file:///srv/github.com/owner/name", None),
        ("/srv/git/name.git", None),
        ("javascript://github.com/owner/name", None),
        ("https://example.org/owner/name", None),
        ("https://notgithub.com/owner/name", None),
        ("https://github.com", None),
        ('https://github.com/owner/"onclick=', None),
        ("https://github.com:port/owner/name", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_remote_of_github_or_gitlab_gives_an_address_without_its_login(remote: str, address: str | None) -> None:
    found = repository_of(remote)
    assert (found and found.address) == address


def test_commits_are_where_github_and_gitlab_have_them() -> None:
    github = Repository(address="https://github.com/owner/name")
    assert github.commit_page(COMMIT) == f"https://github.com/owner/name/commit/{COMMIT}"
    assert github.changes_page(COMMIT, LATER) == f"https://github.com/owner/name/compare/{COMMIT}...{LATER}"
    gitlab = Repository(address="https://gitlab.example.org/group/sub/name")
    assert gitlab.commit_page(COMMIT) == f"https://gitlab.example.org/group/sub/name/-/commit/{COMMIT}"
    assert gitlab.changes_page(COMMIT, LATER).endswith(f"/-/compare/{COMMIT}...{LATER}")


@pytest.mark.parametrize("commit", ["", "HEAD", "../../evil", "a" * 6, '"><script>', COMMIT.upper()])
def test_what_is_no_hash_has_no_page(commit: str) -> None:
    repository = Repository(address="https://github.com/owner/name")
    assert repository.commit_page(commit) == ""
    assert repository.changes_page(commit, COMMIT) == repository.changes_page(COMMIT, commit) == ""


def test_a_given_address_may_be_on_any_host() -> None:
    assert (
        given_repository("https://code.example.org:8443/owner/name.git/").address
        == "https://code.example.org:8443/owner/name"
    )
    assert given_repository("http://git.lan/owner/name").address == "http://git.lan/owner/name"


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)//owner/name",
        "file:///srv/name",
        "https://user@github.com/owner/name",
        "https://github.com/owner/name?tab=1",
        "https://github.com/owner/name#readme",
        "https://github.com:x/owner/name",
        "https://github.com/",
        "github.com/owner/name",
        "https://github.com/owner/<b>",
        "",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"--repository: .* such as https://github\.com/owner/name"):
        given_repository(address)


def test_the_remote_is_that_of_the_folder(tmp_path: Path) -> None:
    assert remote_repository(tmp_path) is None
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert remote_repository(tmp_path) is None
    url = "https://x:y@github.com/owner/name.git"
    subprocess.run(["git", "remote", "add", "origin", url], cwd=tmp_path, check=True)
    assert remote_repository(tmp_path) == Repository(address="https://github.com/owner/name")
