"""Clip scores of 3D-ResNets-PyTorch's own code and of vbench, on the same 40 folders of JPEG frames.

Needs a checkout of github.com/kenshohara/3D-ResNets-PyTorch, whose folder VBENCH_3D_RESNETS names; none of it is here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bench.cli.app import run_command

REPOSITORY = os.environ.get("VBENCH_3D_RESNETS", "")
CLASSES = ("arrow", "ball", "cloud", "drum")
SIZES = ((240, 320), (240, 319), (128, 171), (240, 426), (150, 113), (131, 250), (112, 112), (120, 217))
LENGTHS = (16, 33, 40, 7, 48)

# Runs in the folder of the repository: its models, transforms, data set and softmax of each clip.
DRIVER = """
import importlib.util, json, sys, types
from pathlib import Path
import torch
import torch.nn.functional as F
if importlib.util.find_spec("h5py") is None:  # its readers of HDF5 are imported, and not used for JPEG
    sys.modules["h5py"] = types.ModuleType("h5py")
from torchvision.transforms import transforms
for old, new in (("Scale", "Resize"), ("RandomSizedCrop", "RandomResizedCrop")):
    if not hasattr(transforms, old):  # base classes of transforms that are not used here; torchvision renamed them
        setattr(transforms, old, getattr(transforms, new))
from dataset import get_inference_data
from mean import get_mean_std
from models import resnet
from spatial_transforms import CenterCrop, Compose, Normalize, Resize, ScaleValue, ToTensor
from temporal_transforms import Compose as TemporalCompose, SlidingWindow

frames, annotation, weights, out = map(Path, sys.argv[1:])
torch.manual_seed(0)
model = resnet.generate_model(
    model_depth=10, n_classes=4, n_input_channels=3, shortcut_type="B", conv1_t_size=7, conv1_t_stride=1,
    no_max_pool=False, widen_factor=0.25,
)
# Statistics and a head with which scores differ between clips; fresh ones give nearly the same score to all.
for name, buffer in model.named_buffers():
    if name.endswith("running_mean"):
        buffer.normal_(0, 0.1)
model.fc.weight.data.normal_(0, 0.5)
model.eval()
content = {"epoch": 1, "arch": "resnet-10", "state_dict": model.state_dict(), "optimizer": {}, "scheduler": {}}
torch.save(content, weights)
mean, std = get_mean_std(1, dataset="kinetics")
spatial = Compose([Resize(112), CenterCrop(112), ToTensor(), ScaleValue(1), Normalize(mean, std)])
data, collate = get_inference_data(
    frames, annotation, "ucf101", "rgb", "jpg", "val", spatial, TemporalCompose([SlidingWindow(16, 16)])
)
scores = {}
with torch.no_grad():
    for clips, targets in torch.utils.data.DataLoader(data, batch_size=4, collate_fn=collate):
        for (video, _), row in zip(targets, F.softmax(model(clips), dim=1)):
            scores.setdefault(video, []).append(row.tolist())
out.write_text(json.dumps(scores))
"""


def write_frames(root: Path) -> Path:
    """40 videos as folders of JPEG frames below root/val/<class>, and their annotation in the repository's form."""
    random = np.random.default_rng(0)
    database = {}
    for number in range(40):
        label, (height, width), frames = CLASSES[number % 4], SIZES[number % 8], LENGTHS[number % 5]
        folder = root / "val" / label / f"v_{number:02d}"
        folder.mkdir(parents=True)
        texture = random.integers(0, 256, (height // 8 + 2, width // 8 + frames, 3), np.uint8)
        for frame in range(frames):
            window = texture[:, frame : frame + width // 8 + 2]
            image = Image.fromarray(window).resize((width, height), Image.Resampling.BICUBIC)
            image.save(folder / f"image_{frame + 1:05d}.jpg", quality=92)
        database[folder.name] = {"subset": "validation", "annotations": {"label": label, "segment": [1, frames + 1]}}
    annotation = root / "annotation.json"
    annotation.write_text(json.dumps({"labels": list(CLASSES), "database": database}))
    return annotation


@pytest.mark.skipif(not REPOSITORY, reason="VBENCH_3D_RESNETS names no checkout of 3D-ResNets-PyTorch")
def test_clip_scores_are_those_of_3d_resnets_pytorch(tmp_path: Path) -> None:
    annotation = write_frames(tmp_path / "data")
    weights, theirs = tmp_path / "save_1.pth", tmp_path / "theirs.json"
    command = [sys.executable, "-W", "ignore", "-c", DRIVER]
    command += [str(tmp_path / "data" / "val"), str(annotation), str(weights), str(theirs)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=900, stdout=subprocess.DEVNULL)
    expected = json.loads(theirs.read_text())
    code = run_command(
        ["eval", "resnet3d_10", "--arg", "widen_factor=0.25", "--weights", str(weights), "--dataset", "folder"]
        + ["--root", str(tmp_path / "data"), "--split", "val", "--views", "sliding:16", "--clip-scores"]
        + ["--out", str(tmp_path / "out")]
    )
    assert code == 0
    [file] = (tmp_path / "out").rglob("predictions.parquet")
    table = pq.read_table(file).to_pylist()
    ours = {Path(row["video"]).name: np.array(row["clip_scores"]) for row in table}
    assert ours.keys() == expected.keys()
    assert len(ours) == 40
    assert max(np.ptp(np.concatenate(list(ours.values())), axis=0)) > 0.01  # scores do differ between clips
    for video, scores in expected.items():
        np.testing.assert_allclose(ours[video], np.array(scores), atol=1e-4, err_msg=video)
        order = np.argsort(-np.mean(scores, axis=0), kind="stable")
        assert np.argmax(np.mean(ours[video], axis=0)) == order[0], video
    assert torch.load(weights, weights_only=True)["arch"] == "resnet-10"
