import numpy as np
import pytest
import torch

from bench.train.training_state import mix


def clip_of(values, *, size=8):
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1, 1).expand(-1, 3, 4, size, size).contiguous()


def test_mixup_blends_each_clip_with_its_partner_by_the_share():
    mixed = mix((clip_of([0, 1, 2, 10]),), mixup=1.0, cutmix=0.0, rng=np.random.default_rng(0))
    share = mixed.share
    wanted = [share * own + (1 - share) * other for own, other in ((0, 10), (1, 2), (2, 1), (10, 0))]
    assert mixed.clips[0][:, 0, 0, 0, 0].tolist() == pytest.approx(wanted)
    assert 0 < share < 1


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_share_is_the_area_left_in_every_frame(seed):
    mixed = mix((clip_of([0, 1], size=20),), mixup=0.0, cutmix=1.0, rng=np.random.default_rng(seed))
    first = mixed.clips[0][0]
    assert first.mean().item() == pytest.approx(1 - mixed.share, abs=1e-6)
    assert torch.equal(first[:, :1].expand_as(first), first), "the box is the same in every frame"


def test_cutmix_takes_the_same_box_from_every_input():
    mixed = mix((clip_of([0, 1]), clip_of([0, 1])[:, :, :2]), mixup=0.0, cutmix=1.0, rng=np.random.default_rng(3))
    slow, fast = mixed.clips
    assert torch.equal(slow[:, :, :2], fast)


def test_inputs_are_left_as_they_were():
    clip = clip_of([0, 1])
    mix((clip,), mixup=0.0, cutmix=1.0, rng=np.random.default_rng(3))
    assert torch.equal(clip, clip_of([0, 1]))


def test_both_are_drawn_when_both_are_set():
    rng = np.random.default_rng(0)
    whole = [mix((clip_of([0, 1]),), mixup=0.5, cutmix=0.5, rng=rng).clips[0][0] for _ in range(40)]
    is_blend = [clip.min() == clip.max() for clip in whole]
    assert 5 < sum(is_blend) < 35
