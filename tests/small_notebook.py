"""A notebook of the study that runs in seconds, for tests of what runs and shows notebooks."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = """profile: str = "auto"  # the sizes
beta: float = 1.0  # weight of the KL term
seed: int = 0  # of everything
data_dir: str = ""  # folder of the data"""

PROSE = r"""# Small: a notebook

Costs \$5, `$HOME` and $\beta < 4$.

$$\log p(x) \ge \mathbb{E}_q\left[\log p(x \mid z)\right] - \beta\, \mathrm{KL}$$"""

CELLS = (
    PROSE,
    ["import numpy as np\n", "from vaestudy import figures\n", "square = beta**2"],
    ['figures.statement("The square of {beta:g} is {square:g}.", beta=beta, square=square)'],
    ['figures.table([{"model": "a < b", "MIG": 0.25, "published": None}], "A table.")'],
    [
        'row = {"quantity": "square", "ours": square, "published": 1, "source": "arithmetic"}\n',
        "figures.headline([row])",
    ],
    [
        "with figures.style():\n",
        "    fig, axes = figures.canvas()\n",
        '    axes.plot([1, square], label="β")\n',
        'figures.Figure(fig, "A line.", "A line that rises.", {"y": np.array([1, square])})',
    ],
    [
        "frames = np.linspace(0, 1, 3 * 5 * 64).reshape(3, 5, 1, 8, 8)\n",
        'steps = [f"{v:+d} σ" for v in range(-2, 3)]\n',
        'figures.player(frames, "Moving.", "Three strips.", {}, labels=["z0", "z1", "z2"], steps=steps)',
    ],
    ['figures.provenance([{"run": "small", "device": "cpu", "seed": seed, "commit": "ab" * 20}])'],
)


def write(path, stage="vae", cells=CELLS):
    """Write a notebook whose prose is given as text and whose code as lists of lines."""
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    notebook = new_notebook(metadata=metadata | ({"vaestudy": {"stage": stage}} if stage else {}))
    notebook.cells.append(new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}))
    for cell in cells:
        notebook.cells.append(new_markdown_cell(cell) if isinstance(cell, str) else new_code_cell("".join(cell)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
