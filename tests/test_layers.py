"""The house: who may import whom, read from the imports themselves."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vaestudy

ROOT = Path(vaestudy.__file__).parent
# From the ground up; rooms on one floor do not know each other.
FLOORS = (
    ("errors",),
    ("files", "stopping", "words"),
    ("data", "models", "metrics"),
    ("training",),
    ("trainer", "figures", "claims", "settings", "published"),
    ("profiles",),
    ("experiments",),
    ("report",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in ROOT.rglob("*.py")}
INNER = sorted(set(MODULES) - {"__init__"})


def imports(path, *, at_the_top=False):
    """The modules of the library that a file imports, as dotted names below `vaestudy`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_the_top else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vaestudy":
            base = node.module.removeprefix("vaestudy").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                yield inner if inner in MODULES else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("vaestudy."):
                    yield alias.name.removeprefix("vaestudy.")


def test_imports_point_down():
    for module in INNER:
        room = module.split(".")[0]
        for other in filter(None, imports(MODULES[module])):
            below = other.split(".")[0]
            assert below == room or FLOOR[below] < FLOOR[room], f"{module} imports {other}"


def test_there_is_no_circle():
    graph = {m: {i for i in imports(MODULES[m], at_the_top=True) if i and i != m} for m in INNER}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import vaestudy.__main__", ["torch", "sklearn", "matplotlib", "papermill"]),
        ("import vaestudy.training, vaestudy.data, vaestudy.metrics", ["matplotlib", "papermill", "torchvision"]),
        ("import vaestudy.report.papermill_plugin", ["torch", "matplotlib", "nbconvert"]),
    ],
)
def test_nothing_is_loaded_that_is_not_used(code, absent):
    script = f"{code}\nimport sys\nprint([name for name in {absent} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_every_module_is_imported_where_python_has_no_modules_of_unix():
    script = (
        "import importlib, sys\n"
        "sys.modules |= dict.fromkeys(('resource', 'fcntl', 'pwd', 'grp', 'termios', 'pty'))\n"
        f"for name in {INNER}:\n    importlib.import_module(f'vaestudy.{{name}}')\n"
    )
    shown = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
