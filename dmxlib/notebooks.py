"""Run the notebooks: `python -m dmxlib.notebooks [NAME ...]`, behind `make notebooks`.

Each runs with the data set, model and folder that notebooks/parameters.yaml names for it. Its executed copy
lands in results/notebooks/. With --toy each runs on the toy set with its own defaults, and everything lands
in data/notebooks/, which git ignores.
"""

import argparse
import base64
import io
import os
from pathlib import Path

from dmxlib.config import read_yaml
from dmxlib.data import prepare
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.reproduce import whole
from dmxlib.weights import find, shipped

ROOT = Path(__file__).parents[1]
SOURCES, COPIES, TOY_COPIES = ROOT / "notebooks", ROOT / "results" / "notebooks", ROOT / "data" / "notebooks"


def start(output_dir, data_root=None) -> Path:
    """What every notebook begins with; makes `output_dir` and returns it.

    Paths count from the top of the repository, cells show figures, and the toy set is made where it is asked
    for and missing (some seconds).
    """
    from IPython import get_ipython

    get_ipython().run_line_magic("matplotlib", "inline")
    os.chdir(ROOT)
    if data_root == "data/toy":
        prepare("toy", data_root)
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    return output


def check(parameters: dict, root: Path = ROOT) -> None:
    """Raise InputError where a data set or a checkpoint among a notebook's parameters, whose paths count from
    `root`, is not there."""
    remedy = "or name another in notebooks/parameters.yaml."
    data_root, model = parameters.get("data_root"), parameters.get("model")
    if data_root and not (root / data_root).is_dir():
        raise InputError(f"{data_root} does not exist; get that data set as data/README.md says, {remedy}")
    if model and not any(find(name, "model_index.json") for name in (model, root / model)):
        ships = ", ".join(shipped()) or "none"
        raise InputError(f"{model} is no model that ships ({ships}) and no model folder; train it, {remedy}")


def run(source: Path, parameters: dict, copy: Path) -> None:
    """Execute a notebook where it lies, as JupyterLab does; its copy is named when all cells have run.

    Raises InputError where a cell does, or the kernel dies.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    quiet = ["--log-level=ERROR"]  # the kernel warns of its own default transport
    with whole(copy) as part:
        try:
            notebook = papermill.execute_notebook(
                source, part, parameters, kernel_name="python3", cwd=source.parent, extra_arguments=quiet
            )
        except papermill.PapermillExecutionError as error:
            if error.ename != InputError.__name__:
                raise
            raise InputError(f"{source.stem}: {error.evalue}") from error
        except DeadKernelError as error:
            raise InputError(
                f"{source.stem}: the kernel died, mostly for want of memory; close other programs."
            ) from error
        nbformat.write(tidy(notebook), part)


def tidy(notebook):
    """Drop what a reader has no use for: times, this machine's folders, progress bars, warnings.

    Images get 256 colours, a third of their bytes: a copy stays under 1 MB.
    """
    from nbconvert.preprocessors import ClearMetadataPreprocessor

    kept = {
        "preserve_cell_metadata_mask": {"tags"},
        "preserve_nb_metadata_mask": {"kernelspec", "language_info"},
    }
    ClearMetadataPreprocessor(**kept).preprocess(notebook, {})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = in_256_colours(output.data["image/png"])
    return notebook


def in_256_colours(png: str) -> str:
    """A PNG file in base64, with a palette."""
    from PIL import Image

    image, smaller = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    image.convert("RGB").quantize().save(smaller, "PNG", optimize=True)
    return base64.b64encode(smaller.getvalue()).decode()


@exit_on_input_error
def main(argv=None, run=run, root: Path = ROOT) -> None:
    """Command line; `run` executes a notebook, whose parameters' paths count from `root`."""
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
        check(given[name], root)
    for name in names:
        copy = (TOY_COPIES if options.toy else COPIES) / f"{name}.ipynb"
        run(SOURCES / f"{name}.ipynb", given[name], copy)
        print(copy.relative_to(ROOT))


if __name__ == "__main__":
    main()
