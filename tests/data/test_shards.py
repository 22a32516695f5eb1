"""A shard gives its own members and nothing else, whatever their names are."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from bench.core.errors import DatasetError, VideoError
from bench.data.collection import open_dataset
from bench.data.index import index_folder
from bench.data.shards import is_there, shard_members, source_of


def shard(path: Path, *names: str) -> Path:
    """A tar whose members hold their own names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))
    return path


@pytest.mark.parametrize("name", ["{outside}", "../../outside.mp4", "a/../../../outside.mp4", "a/.."])
def test_a_member_that_leads_out_of_its_shard_is_refused(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"not of the data set")
    path = shard(tmp_path / "root" / "train" / "x.tar", "a/fine.mp4", name.format(outside=outside))
    with pytest.raises(DatasetError, match=r"x\.tar: its member '.*' leads out of it"):
        shard_members(path)
    with pytest.raises(DatasetError, match="leads out of it"):
        open_dataset("folder", root=tmp_path / "root", split="train")


def test_links_in_a_shard_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.mp4").write_bytes(b"not of the data set")
    path = shard(tmp_path / "x.tar", "a/fine.mp4")
    with tarfile.open(path, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            entry = tarfile.TarInfo(f"a/link{kind.decode()}.mp4")
            entry.type, entry.linkname = kind, str(tmp_path / "outside.mp4")
            tar.addfile(entry)
    assert list(shard_members(path)) == ["a/fine.mp4"]


def test_devices_and_pipes_in_a_shard_are_no_videos(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", "a/fine.mp4")
    with tarfile.open(path, "a") as tar:
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            entry = tarfile.TarInfo(f"a/special{kind.decode()}.mp4")
            entry.type, entry.devmajor, entry.devminor = kind, 1, 5  # /dev/zero, which never ends
            tar.addfile(entry)
    assert list(shard_members(path)) == ["a/fine.mp4"]
    with pytest.raises(VideoError, match=r"no such file in x\.tar"):
        source_of(path / "a/special3.mp4")


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    """Its bytes are not where its offset and size say; it may also claim a petabyte."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("a/sparse.mp4")
        entry.size = 8
        entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,4,1000000,4",
                             "GNU.sparse.size": "1000004"}  # fmt: skip
        tar.addfile(entry, io.BytesIO(b"12345678"))
    with pytest.raises(DatasetError, match=r"x\.tar: its member 'a/sparse.mp4' is stored sparse"):
        shard_members(path)


def test_an_index_never_reads_outside_of_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"not of the data set")
    shard(tmp_path / "root" / "x.tar", str(outside))
    try:
        found = index_folder(tmp_path / "root")
    except DatasetError as error:
        assert "leads out of it" in str(error)
    else:
        assert "ok" not in found.verdicts


def test_names_are_found_however_they_are_spelt(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", "./a/1.mp4", "a//2.mp4", "a/./3.mp4", "..b/..4.mp4")
    assert list(shard_members(path)) == ["a/1.mp4", "a/2.mp4", "a/3.mp4", "..b/..4.mp4"]
    for name, stored in (("a/1.mp4", 9), ("a/2.mp4", 8), ("a/3.mp4", 9), ("..b/..4.mp4", 11)):
        assert source_of(path / name).size == stored


def test_paths_that_no_file_can_have_are_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "plain.mp4").write_bytes(b"x")
    for path in (tmp_path / ("x" * 300), tmp_path / "pipe.tar" / "a.mp4", tmp_path / "plain.mp4" / "a.mp4"):
        assert not is_there(path)
        with pytest.raises(VideoError, match=r"there is no such file"):
            source_of(path)
