"""Run the notebooks: `python -m dmxlib.notebooks [NAME ...]`, behind `make notebooks`.

Each runs with the data set, checkpoint and folder that notebooks/parameters.yaml names for it, and its
executed copy lands in results/notebooks/. With --toy each runs on the toy set with its own defaults, and all
that comes of it lands in data/notebooks/, which git ignores.
"""

import argparse
from pathlib import Path

from dmxlib.config import read_yaml
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.plots import play  # noqa: F401  the notebooks' cells take it from here
from dmxlib.reproduce import whole
from dmxlib.weights import find, shipped

ROOT = Path(__file__).parents[1]
SOURCES, COPIES, TOY_COPIES = ROOT / "notebooks", ROOT / "results" / "notebooks", ROOT / "data" / "notebooks"


def check(parameters: dict) -> None:
    """Raise InputError where a data set or a checkpoint among a notebook's parameters is not there."""
    remedy = "or name another in notebooks/parameters.yaml."
    data_root, model = parameters.get("data_root"), parameters.get("model")
    if data_root and not (ROOT / data_root).is_dir():
        raise InputError(f"{data_root} does not exist; get that data set as data/README.md says, {remedy}")
    if model and not any(find(name, "model_index.json") for name in (model, ROOT / model)):
        ships = ", ".join(shipped()) or "none"
        raise InputError(f"{model} is no model that ships ({ships}) and no model folder; train it, {remedy}")


def run(source: Path, parameters: dict, copy: Path) -> None:
    """Execute a notebook where it lies, as JupyterLab does; its copy is named when all cells have run."""
    import nbformat
    import papermill

    with whole(copy) as part:
        notebook = papermill.execute_notebook(
            source,
            part,
            parameters,
            kernel_name="python3",
            cwd=source.parent,
            progress_bar={"desc": source.stem},
            extra_arguments=["--log-level=ERROR"],  # of the kernel, which warns of its own default transport
        )
        nbformat.write(tidy(notebook), part)


def tidy(notebook):
    """Drop what a reader has no use for: times, this machine's folders, progress bars and warnings."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 00_data; by default all")
    parser.add_argument("--toy", action="store_true", help="on the toy set, into data/notebooks")
    options = parser.parse_args(argv)
    parameters = read_yaml(SOURCES / "parameters.yaml")
    names = options.names or sorted(path.stem for path in SOURCES.glob("*.ipynb"))
    unknown = sorted(set(names) - parameters.keys())
    if unknown:
        raise InputError(f"notebooks/parameters.yaml names no parameters for {', '.join(unknown)}; add them.")
    given = {name: {} if options.toy else parameters[name] for name in names}
    for name in names:
        check(given[name])
    for name in names:
        copy = (TOY_COPIES if options.toy else COPIES) / f"{name}.ipynb"
        run(SOURCES / f"{name}.ipynb", given[name], copy)
        print(copy.relative_to(ROOT))


if __name__ == "__main__":
    main()
