"""What may import what: the method knows nothing of what trains, judges or asks it; no circles.

`pytest -s tests/test_layout.py` prints the order of all files.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "dmxlib"

# Files and folders of dmxlib/; each imports from lines above its own, and a folder from itself.
ORDER = """
errors
reproduce
config audio weights device
metrics summary
plots
data
codec
level diffusion refine expander
unet streaming
pipeline
latents
training
baselines
ensemble
separate
evaluation
studies listening
demo notebooks train train_codec report
"""


def module_of(path):
    """dmxlib/codec/load.py -> codec.load, dmxlib/codec/__init__.py -> codec, dmxlib/__init__.py -> ''."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imported(path):
    """The package's modules that a file imports, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name.removeprefix("dmxlib.") in MODULES else node.module for name in names}
    return {name.removeprefix("dmxlib.") for name in found if name.startswith("dmxlib.")}


FILES = {module: imported(path) for module, path in MODULES.items() if module}
LINE = {name: number for number, names in enumerate(ORDER.split("\n")) for name in names.split()}


def room(module):
    """Its file or folder at the top of the package."""
    return module.partition(".")[0]


def test_no_circle_of_files():
    order = list(TopologicalSorter(FILES).static_order())  # raises CycleError, which names it
    for line in range(1, max(LINE.values()) + 1):
        print(*(module for module in order if LINE.get(room(module)) == line))


def test_no_circle_of_folders():
    rooms = {}
    for module, others in FILES.items():
        rooms.setdefault(room(module), set()).update({room(other) for other in others} - {room(module)})
    assert len(list(TopologicalSorter(rooms).static_order())) == len(rooms)


def test_no_import_goes_up():
    assert {room(module) for module in FILES} == LINE.keys()
    wrong = [
        f"{module} imports {other}"
        for module, others in FILES.items()
        for other in others
        if room(other) != room(module) and LINE[room(other)] >= LINE[room(module)]
    ]
    assert wrong == []
