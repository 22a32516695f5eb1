"""Damage in the middle of a file, over which FFmpeg's readers jump without an error."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.data.container import break_in_chain
from bench.data.probing import probe
from bench.data.shards import source_of

Write = Callable[..., Path]

FRAMES = 120
MADE = {
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "g": "12"}},
    "ffv1.mkv": {"codec": "ffv1"},
}


@pytest.fixture(scope="module", params=MADE)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, write_video: Write) -> Path:
    """A file of 120 frames with no damage, several clusters long."""
    return write_video(tmp_path_factory.mktemp("whole") / request.param, frames=FRAMES, **MADE[request.param])


@pytest.fixture
def holed(whole: Path, tmp_path: Path) -> Path:
    """The same file with a twentieth of its bytes wiped, from two fifths on."""
    content = bytearray(whole.read_bytes())
    start, length = len(content) * 2 // 5, len(content) // 20
    content[start : start + length] = bytes(length)
    path = tmp_path / f"holed{whole.suffix}"
    path.write_bytes(content)
    return path


def test_a_hole_that_the_reader_jumps_over_is_damage(
    whole: Path, holed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sound, damaged = probe(whole), probe(holed)
    assert (sound.verdict, sound.problem, sound.frames) == ("ok", "", FRAMES)
    assert damaged.verdict.startswith("damaged after frame ")
    assert 0 < damaged.frames < FRAMES
    # What comes behind the hole is decoded; the frame that is named is the last one before it.
    last_sound = int(damaged.verdict.split()[-1])
    assert list(damaged.pts[: last_sound + 1]) == list(sound.pts[: last_sound + 1])
    assert damaged.pts[last_sound + 1] != sound.pts[last_sound + 1]
    assert f"frame {last_sound + 1} is damaged" in damaged.problem
    assert capfd.readouterr() == ("", "")


def test_messages_about_one_file_do_not_affect_another(whole: Path, holed: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        verdicts = [facts.verdict for facts in pool.map(probe, [holed, whole] * 4)]
    assert [verdict == "ok" for verdict in verdicts] == [False, True] * 4
    assert len(set(verdicts)) == 2


def with_element(content: bytes, element: bytes) -> tuple[bytes, int]:
    """A Matroska file with one more element before its first cluster, and where that is; its segment grows by it."""
    segment, at = content.index(bytes.fromhex("18538067")) + 4, content.index(bytes.fromhex("1f43b675"))
    assert content[segment] == 1, "a size of eight bytes"
    size = (int.from_bytes(content[segment : segment + 8], "big") + len(element)).to_bytes(8, "big")
    return content[:segment] + size + content[segment + 8 : at] + element + content[at:], at


def test_elements_of_a_kind_not_known_yet_are_no_damage(whole: Path, tmp_path: Path) -> None:
    """Readers of Matroska pass over what they do not know, where the chain goes on behind it."""
    path = tmp_path / f"newer{whole.suffix}"
    for element, is_whole in [
        (b"\x42\x99\x83abc", True),
        (b"\x42\x99\x83abcd", False),
        (b"\x42\x99\x01" + b"\xff" * 6 + b"\xfe", False),  # longer than any file
    ]:
        content, at = with_element(whole.read_bytes(), element)
        path.write_bytes(content)
        assert break_in_chain(source_of(path)) == (None if is_whole else at)


def test_an_element_that_reaches_beyond_its_cluster_is_where_the_chain_breaks(whole: Path, tmp_path: Path) -> None:
    """One byte of a block's size is turned: it claims to go on into what follows."""
    content = bytearray(whole.read_bytes())
    cluster = content.index(bytes.fromhex("1f43b675"))
    block = content.index(b"\xa3", cluster + 8)
    content[block + 1] = 0x10  # a length of four bytes, hundreds of thousands
    path = tmp_path / f"long{whole.suffix}"
    path.write_bytes(content)
    assert break_in_chain(source_of(path)) == block
    assert probe(path).verdict != "ok"


def test_damage_in_the_last_cluster_is_damage(tmp_path: Path, write_video: Write) -> None:
    """Nothing that could be read follows it, and the file is as long as it says."""
    path = write_video(tmp_path / "short.mkv", codec="libvpx", frames=20)
    content = bytearray(path.read_bytes())
    assert content.count(bytes.fromhex("1f43b675")) == 1, "one cluster"
    start, length = len(content) * 3 // 5, len(content) // 5
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    facts = probe(path)
    assert 0 < facts.frames < 20
    assert facts.verdict == f"damaged after frame {facts.frames - 1}"


def test_bytes_behind_the_end_are_no_damage(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / f"tail{whole.suffix}"
    path.write_bytes(whole.read_bytes() + bytes(5000))
    assert break_in_chain(source_of(path)) is None
    assert (probe(path).verdict, probe(path).frames) == ("ok", FRAMES)


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -5000])
def test_a_file_that_ends_early_is_cut_not_broken(whole: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / f"cut{whole.suffix}"
    path.write_bytes(whole.read_bytes()[:keep])
    assert break_in_chain(source_of(path)) is None


def test_a_packet_that_came_damaged_is_damage(tmp_path: Path, write_video: Write) -> None:
    path = write_video(tmp_path / "a.ts", codec="mpeg2video", frames=60)
    content = bytearray(path.read_bytes())
    video = [
        at for at in range(0, len(content), 188) if int.from_bytes(content[at + 1 : at + 3], "big") & 0x1FFF == 256
    ]
    lost = video[len(video) // 2]  # a single packet of 188 bytes, so that the count of packets shows the gap
    del content[lost : lost + 188]
    path.write_bytes(content)
    facts = probe(path)
    assert facts.verdict.startswith("damaged after frame ")
    assert 10 < int(facts.verdict.split()[-1]) < 50
