"""The wheel holds the package, all of it, and nothing else: dmxlib works without a checkout."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the sources, with zeros for weights: those take seconds to pack."""
    pytest.importorskip("setuptools", reason="setuptools, which builds the wheel, is missing")
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "dmxlib", source / "dmxlib", copy_function=copy)
    (source / "tests").mkdir()
    (source / "tests" / "__init__.py").touch()
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", target]
    subprocess.run([*command, source], check=True, timeout=300)
    (path,) = target.iterdir()
    return zipfile.ZipFile(path)


def copy(source, target):
    """As shutil.copy, but for the weights: as many zeros."""
    if str(source).endswith(".safetensors"):
        with open(target, "wb") as file:
            file.truncate(Path(source).stat().st_size)
    else:
        shutil.copy(source, target)


def test_wheel_is_the_package(wheel):
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "dmxlib").rglob("*")
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    }
    packed = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert packed == ours
    system = "pretrained/ldm-dmx-mini"
    weights = f"{system}/unet/diffusion_pytorch_model.safetensors"
    for name in ("configs/paper_stage1.yaml", "listening/page/index.html", f"{system}/README.md", weights):
        assert f"dmxlib/{name}" in packed


def test_wheel_has_the_command(wheel):
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "dmxlib-separate = dmxlib.separate:main" in wheel.read(entry_points).decode().splitlines()


def test_no_folder_of_weights_repeats_anothers():
    """Nor holds more than half precision."""
    pretrained, seen = ROOT / "dmxlib" / "pretrained", {}
    for path in pretrained.rglob("*.safetensors"):
        folder = path.relative_to(pretrained).parts[0]
        for name, tensor in load_file(path).items():
            assert tensor.dtype == torch.float16, path
            if tensor.numel() > 10_000:
                digest = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
                assert seen.setdefault(digest, folder) == folder, f"{name} of {folder} is in {seen[digest]}"


def test_what_ships_is_under_60_MB(wheel):
    """In git's tree, and in the wheel, whose weights have their true length."""
    listed = ["git", "ls-files", "dmxlib/*.safetensors"]
    tracked = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a checkout")
    tree = {name: (ROOT / name).stat().st_size for name in tracked.stdout.splitlines()}
    packed = {file.filename: file.file_size for file in wheel.infolist()}
    for where, sizes in (("git", tree), ("wheel", packed)):
        sizes = {name: size / 1e6 for name, size in sizes.items() if name.endswith(".safetensors")}
        largest = sorted(sizes, key=sizes.get)[:-6:-1]
        listing = ", ".join(f"{name} {sizes[name]:.1f}" for name in largest)
        total = sum(sizes.values())
        assert 0 < total < 60, f"{where}: {total:.1f} MB of weights; the largest: {listing}"
