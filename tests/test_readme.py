"""The READMEs: short, and all that they name exists."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from dmxlib.weights import FOLDER, shipped

ROOT = Path(__file__).parents[1]
READMES = {"README.md": 150, "data/README.md": 200}  # and the lines that each may have


@pytest.fixture(params=READMES)
def readme(request):
    """A README's path."""
    return ROOT / request.param


def test_length(readme):
    assert len(readme.read_text().splitlines()) <= READMES[str(readme.relative_to(ROOT))]


def test_links_lead_somewhere(readme):
    links = re.findall(r"\]\(([^)#]+)", readme.read_text())
    missing = [link for link in links if "://" not in link and not (readme.parent / link).exists()]
    assert links and not missing


def test_commands_exist(readme):
    modules = set(re.findall(r"python -m (dmxlib[\w.]*)", readme.read_text()))
    scripts = set(re.findall(r"accelerate launch.* (dmxlib/\w+\.py)", readme.read_text()))
    configs = set(re.findall(r"dmxlib/configs/\w+\.yaml", readme.read_text()))
    assert modules and all(find_spec(module) for module in modules)
    assert all((ROOT / path).is_file() for path in scripts | configs)


def test_files_exist_and_are_about_as_long_as_the_readme_says():
    text = (ROOT / "README.md").read_text()
    named = {path for path in re.findall(r"`([\w/]+\.py)`", text) if not path.startswith("dmxlib/")}
    assert not [path for path in named if not (ROOT / "dmxlib" / path).is_file()]
    hour = re.findall(r"^\d+\. `([\w/]+\.py)` \((\d+)", text, re.M)
    assert len(hour) == 12
    for path, lines in hour:
        length = len((ROOT / "dmxlib" / path).read_text().splitlines())
        assert 0.8 < length / int(lines) < 1.25, f"{path} has {length} lines"


def test_models_are_listed_with_the_figures_of_results():
    rows = pd.read_csv(ROOT / "results" / "unheard-singers" / "rows.csv")
    scores = rows[rows.metric == "si_sdr"].groupby("system").value.median()
    songs = pd.read_csv(ROOT / "results" / "speed" / "songs" / "benchmark.csv")
    seconds = songs[songs.part == "song of 60 s"].set_index("system").seconds_median
    scored = {"ldm-dmx-mini": "ldm-dmx-refined", "instglow-mini": "instglow-refined@10"}
    for name in shipped("about.json"):
        told = json.loads((FOLDER / name / "about.json").read_text())
        score = scores.get(scored.get(name, name.removesuffix("-mini")))
        assert told["si_sdr"] == (score and pytest.approx(score, abs=0.006)), name
        assert told["speed"] == pytest.approx(60 / seconds[name], abs=0.06), name
