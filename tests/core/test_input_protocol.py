"""Parts of an input protocol: how they are given, which source wins, and how a mistake is reported."""

import pytest

from bench.core.errors import InputError, UnknownNameError
from bench.core.input_protocol import (
    InputProtocol,
    given_protocol,
    parse_protocol,
    protocol_of_clip,
    read_class_names,
)
from bench.core.schema import Clip


def test_the_command_line_form_gives_every_part_its_type():
    found = parse_protocol("channels=bgr,scale=255,mean=90/98/102,std=1/1/1,resize=128x171,antialias=false")
    assert found.parts == {
        "channels": "bgr",
        "scale": 255,
        "mean": (90.0, 98.0, 102.0),
        "std": (1.0, 1.0, 1.0),
        "resize": "128x171",
        "antialias": False,
    }
    assert {found.mark(part) for part in found.parts} == {"given"}
    assert found.mark("clip") is None


def test_a_file_and_the_command_line_give_the_same_protocol(tmp_path):
    file = tmp_path / "caffe.yaml"
    file.write_text("channels: bgr\nscale: 255\nmean: [90, 98, 102]\nresize: [128, 171]\n")
    assert parse_protocol(str(file)) == parse_protocol("channels=bgr,scale=255,mean=90/98/102,resize=128x171")


@pytest.mark.parametrize(
    ("text", "size"),
    [("short:128", 128), ("128", 128), ("128x171", (128, 171)), ("cover", None), ("none", None)],
)
def test_a_resize_rule_gives_the_size_to_scale_to(text, size):
    assert parse_protocol(f"resize={text}").resize_size == size


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("chanels=bgr", "did you mean: channels?"),
        ("channels=bgrr", "found 'bgrr'; did you mean: bgr?"),
        ("scale=2", "scale: input should be 1 or 255"),
        ("mean=a/b", "found 'a'"),
        ("mean=nan", "mean"),
        ("std=0/1/1", "greater than 0"),
        ("mean=1/2,std=1/2/3", "different lengths"),
        ("resize=short", "short:128"),
        ("crop=0", "number of pixels"),
        ("clip=16", "frames x stride"),
        ("clip=8x@0fps", "frames x stride"),
        ("averaging=softmx", "did you mean: softmax?"),
        ("channels=bgr,channels=rgb", "given twice"),
        ("mean=1,2,3", "90/98/102"),
        ("classes=red", "--labels FILE"),
        ("missing.yaml", "is not a file"),
        ("", "is not a file"),
    ],
)
def test_a_mistake_is_one_line(text, told):
    with pytest.raises(InputError) as error:
        parse_protocol(text)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_key_of_a_suite_names_its_place():
    with pytest.raises(UnknownNameError, match="in case 3"):
        given_protocol({"channel": "bgr"}, where="case 3")


def test_the_user_overrides_the_checkpoint_which_overrides_the_zoo():
    zoo = InputProtocol.of({"channels": "bgr", "scale": 255, "short": "loop"}, mark="recognised", origin="a zoo")
    stored = InputProtocol.of({"scale": 1, "clip": "8x1"}, mark="stored", origin="last.pt")
    given = InputProtocol.of({"clip": "4x2"}, mark="given")
    found = given.over(stored).over(zoo)
    assert (found.clip, found.scale, found.channels, found.short) == ("4x2", 1, "bgr", "loop")
    assert [found.mark(part) for part in ("clip", "scale", "channels", "short", "mean")] == [
        "given",
        "stored",
        "recognised",
        "recognised",
        None,
    ]
    assert str(found) == "clip 4x2 (given); scale 1 (stored: last.pt); channels bgr, short loop (recognised: a zoo)"


def test_only_decisive_parts_count_as_assumed():
    found = InputProtocol.of({"mean": 0.45, "averaging": "softmax"}, mark="assumed")
    assert found.assumed == ("mean",)


@pytest.mark.parametrize("text", ["16x1x112", "8x4x128x171"])
def test_a_clip_becomes_parts_and_back(text):
    clip = Clip.model_validate(text)
    assert protocol_of_clip(clip, mark="stored").clip_over(Clip.model_validate("1x1x1")) == clip


def test_a_clip_at_a_rate_becomes_parts_and_back():
    clip = Clip(frames=30, stride=None, fps=15, height=112, width=112)
    assert protocol_of_clip(clip, mark="stored").clip_over(Clip.model_validate("1x1x1")) == clip


def test_a_protocol_that_leaves_the_clip_open_keeps_the_default():
    default = Clip.model_validate("16x1x112")
    assert InputProtocol().clip_over(default) == default
    assert str(parse_protocol("crop=128").clip_over(default)) == "16x1x128"


def test_a_stored_protocol_is_read_back():
    found = InputProtocol.of(
        {"channels": "rgb", "mean": (0.1, 0.2, 0.3), "resize": (128, 171), "classes": ("a", "b"), "antialias": True},
        mark="given",
    )
    assert InputProtocol.of(found.as_stored(), mark="given") == found


def test_the_record_has_the_source_of_every_part_and_counts_the_classes():
    found = InputProtocol.of({"scale": 1, "classes": ["a", "b"]}, mark="stored", origin="last.pt")
    assert found.as_detail() == {
        "scale": 1,
        "classes": 2,
        "sources": {
            "scale": {"mark": "stored", "origin": "last.pt"},
            "classes": {"mark": "stored", "origin": "last.pt"},
        },
    }


def test_class_names_are_one_a_line(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("\ufeffput on\nBlow-Dry Hair\n\n", encoding="utf-8")
    assert read_class_names(file) == ("put on", "Blow-Dry Hair")


@pytest.mark.parametrize(("text", "told"), [("a\n\nb\n", ":2:"), ("", ":1:"), ("a\nb\na\n", "'a' stands on several")])
def test_a_file_of_class_names_with_gaps_is_refused(tmp_path, text, told):
    file = tmp_path / "labels.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=told):
        read_class_names(file)


def test_a_class_name_may_hold_any_character_but_a_line_end(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("one\u2028half\r\ntwo\x0chalf\r\n".encode())
    assert read_class_names(file) == ("one\u2028half", "two\x0chalf")


def test_a_long_file_of_class_names_is_read_at_once(tmp_path):
    """A text of a million lines that was given by mistake took hours."""
    file = tmp_path / "names.txt"
    file.write_text("\n".join(map(str, range(200_000))) + "\n7\n")
    with pytest.raises(InputError, match="'7' stands on several lines"):
        read_class_names(file)
