"""Every notebook, executed as a user would with small parameters; and how its source has to look."""

import ast
import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest

from dmxlib import baselines, notebooks, plots
from dmxlib.config import read_yaml, write_yaml
from dmxlib.errors import InputError
from dmxlib.training.separator import TrainConfig

SOURCES = sorted(notebooks.SOURCES.glob("*.ipynb"))
SHIPPED = read_yaml(notebooks.SOURCES / "parameters.yaml")
SMALL_UNET = dict(
    level_channels=[16, 16, 16],
    blocks_per_level=1,
    first_injection=0,
    attention_from=2,
    fourier_channels=16,
    time_channels=16,
)
# What each notebook is run with beside data_root, model or codec and output_dir, and what it has to write.
SMALL = {
    "00_data": dict(start_seconds=1.0, seconds=3.0, voiced_excerpts=1),
    "01_encodec_robustness": dict(excerpt_seconds=0.4),
    "02_latent_diffusion": dict(noise_levels=[0.0, 1.0], num_inference_steps=2),
    "03_training": dict(
        max_train_steps=2, train_batch_size=2, pairs=4, chunk_frames=64, hold_out_seconds=2.0
    ),
    "04_sampling": dict(
        start_seconds=1.0,
        seconds=2.0,
        num_inference_steps=1,
        step_counts=[1, 2],
        overlaps=[0.0, 0.5],
        seeds=[0, 1],
    ),
    "05_objective_table": dict(systems=["mixture", "irm"]),
    "06_listening_test": dict(recordings=1, seconds=1.2),
    "07_unheard_singers": {},  # it reads the scores in results/
}
WRITES = {
    "00_data": ["songs.csv", "spectrograms.png"],
    "01_encodec_robustness": ["table1.csv", "table1.md", "noise.png", "codec.png", "run.json"],
    "02_latent_diffusion": ["noise.png", "errors.csv"],
    "03_training": ["brief_run/log.jsonl", "brief_run/model/model_index.json"],
    "04_sampling": ["sampling.csv", "sampling.png", "uncertainty.png"],
    "05_objective_table": ["table2.csv", "table2.png", "speed.png"],
    "06_listening_test": ["test/key.json", "analysis/table3.md", "listeners.csv"],
    "07_unheard_singers": ["singers.png", "gnsdr.png"],
}


@pytest.fixture
def jupyter_in_tmp(tmp_path, monkeypatch):
    """Jupyter writes nothing to the home folder and takes this Python's kernel, whatever is registered."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def read(source):
    """A notebook's cells of code."""
    return [cell for cell in nbformat.read(source, 4).cells if cell.cell_type == "code"]


def tree(cell):
    """A cell's syntax; magics are left out."""
    return ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!"))))


def defaults(source) -> dict:
    """The names and literals of the notebook's only cell of parameters."""
    (cell,) = [cell for cell in read(source) if "parameters" in cell.metadata.get("tags", [])]
    statements = tree(cell).body
    assert all(isinstance(statement, ast.Assign) for statement in statements)
    return {statement.targets[0].id: ast.literal_eval(statement.value) for statement in statements}


def snapshot(folder) -> dict:
    """When each file below a folder was last written."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def small_parameters(source, tmp_path, toy_root, model_folder, codec_folder) -> dict:
    """Those a notebook is tested with."""
    if source.stem == "03_training":
        write_yaml(TrainConfig(**SMALL_UNET), tmp_path / "small.yaml")
    if source.stem == "04_sampling":
        msgld = {"codec": str(codec_folder), "chunk_samples": 32 * 320, "latent_channels": 16}
        sizes = {name: SMALL_UNET[name] for name in SMALL_UNET if name != "first_injection"}
        baselines.load("msgld")(**msgld, **sizes).save_pretrained(tmp_path / "msgld")
    shared = dict(
        data_root=str(toy_root),
        model=str(model_folder),
        joint_model=str(tmp_path / "msgld"),
        codec=str(codec_folder),
        config=str(tmp_path / "small.yaml"),
        output_dir=str(tmp_path / "output"),
    )
    names = defaults(source)
    return {name: value for name, value in shared.items() if name in names} | SMALL[source.stem]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_runs(source, tmp_path, toy_root, model_folder, codec_folder, jupyter_in_tmp):
    before = snapshot(notebooks.ROOT / "results")
    copy = tmp_path / "copies" / source.name

    parameters = small_parameters(source, tmp_path, toy_root, model_folder, codec_folder)
    notebooks.run(source, parameters, copy)

    executed = nbformat.read(copy, 4)
    nbformat.validate(executed)
    assert [path.name for path in copy.parent.iterdir()] == [source.name]
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert str(tmp_path) not in str(executed.metadata)
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
    for name in WRITES[source.stem]:
        assert (tmp_path / "output" / name).stat().st_size > 0
    assert snapshot(notebooks.ROOT / "results") == before
    assert sum(len(output.get("data", {}).get("image/png", "")) for output in outputs) < 1e6


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_source(source):
    cells = read(source)
    assert all(cell.execution_count is None and not cell.outputs for cell in cells)
    assert len(cells) <= 14
    assert len(defaults(source)) >= 3
    assert ["start(output_dir" in cell.source for cell in cells].index(True) == 1  # after the parameters
    assert not any("globals()" in cell.source for cell in cells)
    for cell in cells:
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.body[0].lineno < 5, f"{node.name} is longer than five lines"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_defaults_stay_out_of_results(source):
    values = defaults(source)
    assert values.get("data_root", "data/toy") == "data/toy"
    assert values["output_dir"] == f"data/notebooks/{source.stem}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_shipped_parameters(source):
    """Those of parameters.yaml exist, and let no song into the published copy."""
    values = defaults(source)
    given = SHIPPED[source.stem]
    assert given.keys() <= values.keys()
    assert {"data_root", "output_dir"} & values.keys() <= given.keys()
    assert "players" not in values or given["players"] is False


@pytest.mark.parametrize(
    "parameters, missing",
    [({"data_root": "data/nowhere"}, "data/nowhere"), ({"model": "no-such-model"}, "no-such-model")],
)
def test_names_what_is_missing(parameters, missing):
    with pytest.raises(InputError, match=f"{missing}.*parameters.yaml"):
        notebooks.check(parameters)


def test_model_folder_is_found(model_folder):
    notebooks.check({"model": str(model_folder)})


def test_missing_data_ends_before_anything_runs(tmp_path):
    with pytest.raises(SystemExit, match="^error: .* does not exist; .*README"):
        notebooks.main([], lambda *_: pytest.fail("a notebook was run"), tmp_path)


def test_runner_gives_each_its_parameters(tmp_path):
    def record(*given):
        runs.append(given)

    runs = []
    for given in SHIPPED.values():
        (tmp_path / given.get("data_root", "")).mkdir(parents=True, exist_ok=True)
    notebooks.main([], record, tmp_path)
    copies = notebooks.ROOT / "results" / "notebooks"
    assert runs == [(source, SHIPPED[source.stem], copies / source.name) for source in SOURCES]
    runs.clear()
    notebooks.main(["--toy", SOURCES[0].stem], record)
    assert runs == [(SOURCES[0], {}, notebooks.ROOT / "data" / "notebooks" / SOURCES[0].name)]


def test_unknown_notebook():
    with pytest.raises(SystemExit, match="99_nothing"):
        notebooks.main(["99_nothing"])


def failing(tmp_path) -> Path:
    """A notebook whose only cell raises."""
    path = tmp_path / "failing.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    return path


def test_failed_run_leaves_no_copy(tmp_path, jupyter_in_tmp):
    copy = tmp_path / "copies" / "failing.ipynb"
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.run(failing(tmp_path), {}, copy)
    assert not list(copy.parent.iterdir())


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("from dmxlib.errors import InputError\nraise InputError('there is no song.')", "there is no song.$"),
        ("import os\nos.kill(os.getpid(), 9)", "the kernel died"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_sentence(tmp_path, jupyter_in_tmp, cell, told):
    path = tmp_path / "cells.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), path)
    with pytest.raises(InputError, match=f"^cells: {told}"):
        notebooks.run(path, {}, tmp_path / "copies" / "cells.ipynb")
    assert not list((tmp_path / "copies").iterdir())


def test_tidy():
    cell = nbformat.v4.new_code_cell("x", metadata={"tags": ["parameters"], "papermill": {"duration": 1}})
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="\r 50%\r100%\n"),
        nbformat.v4.new_output("stream", name="stdout", text="done"),
    ]
    book = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"input_path": "/home/me/x.ipynb"}})
    book = notebooks.tidy(book)
    assert [output.text for output in book.cells[0].outputs] == ["done"]
    assert book.cells[0].metadata == {"tags": ["parameters"]} and book.metadata == {}


def test_tidy_gives_images_256_colours():
    from PIL import Image

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    file = io.BytesIO()
    noise.save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    output = nbformat.v4.new_output("display_data", {"image/png": png})
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])
    tidied = notebooks.tidy(book).cells[0].outputs[0].data["image/png"]
    image = Image.open(io.BytesIO(base64.b64decode(tidied)))
    assert (image.mode, image.size) == ("P", noise.size) and len(tidied) < len(png) / 2


def test_play(monkeypatch):
    from IPython import display

    shown = []
    monkeypatch.setattr(display, "display", lambda *things: shown.append(things))
    plots.play({"loud": np.ones((2, 10)), "quiet": np.full((2, 10), 0.5)}, 8000)
    assert [title.data for title, _ in shown] == ["loud", "quiet"]
    assert all(player.data[:4] == b"RIFF" for _, player in shown)
    assert np.frombuffer(shown[1][1].data[44:], np.int16).max() == 2**14 - 1  # half of full scale
