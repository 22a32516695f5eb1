"""The table of 3D-ResNets-PyTorch's options is complete, and what it names here exists."""

import re
from pathlib import Path

import pytest

from bench.core.registry import MODELS, options_of
from bench.data.transforms import Augmentation
from bench.train.recipe import Recipe

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "3d-resnets-options.md"
# `python main.py --help` of kenshohara/3D-ResNets-PyTorch, master.
NAMES = """
root_path video_path annotation_path result_path dataset n_classes n_pretrain_classes pretrain_path
ft_begin_module sample_size sample_duration sample_t_stride train_crop train_crop_min_scale
train_crop_min_ratio no_hflip colorjitter train_t_crop learning_rate momentum dampening weight_decay
mean_dataset no_mean_norm no_std_norm value_scale nesterov optimizer lr_scheduler multistep_milestones
overwrite_milestones plateau_patience batch_size inference_batch_size batchnorm_sync n_epochs begin_epoch
n_val_samples resume_path no_train no_val inference inference_subset inference_stride inference_crop
inference_no_average no_cuda n_threads checkpoint model model_depth conv1_t_size conv1_t_stride no_max_pool
resnet_shortcut resnet_widen_factor wide_resnet_k resnext_cardinality input_type manual_seed accimage
output_topk file_type tensorboard distributed dist_url world_size
"""
OPTIONS = NAMES.split()
ROWS = re.findall(r"^\| `--(\w+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_option_has_exactly_one_row():
    assert sorted(option for option, _ in ROWS) == sorted(OPTIONS)


@pytest.mark.parametrize(("option", "here"), ROWS, ids=[option for option, _ in ROWS])
def test_keys_of_recipes_and_augmentations_exist(option, here):
    for key in re.findall(r"recipe `(\w+)", here):
        assert key in Recipe.model_fields
    for key in re.findall(r"augmentation `(\w+)", here):
        assert key in Augmentation.__dataclass_fields__


def test_arguments_of_models_exist():
    known = {name for model in MODELS for name in options_of(model.function, keyword_only=False)}
    for _, here in ROWS:
        for argument in re.findall(r"--arg (\w+)", here):
            assert argument in known
