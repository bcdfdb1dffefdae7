"Every notebook runs from top to bottom, one test a notebook"
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path.relative_to(ROOT/'nbs') for path in (ROOT/'nbs').rglob('*.ipynb')
                   if not any(part[0] in '._' for part in path.relative_to(ROOT).parts))
COMMAND = ('import sys; from nbdev.test import nbdev_test; '
           'nbdev_test.__wrapped__(path=sys.argv[1], n_workers=0, do_print=True)')


@pytest.mark.skipif(find_spec('nbdev') is None, reason="nbdev is not installed: it comes with the dev extra")
@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda path: path.with_suffix('').as_posix())
def test_notebook(notebook):
    # One process each: a notebook must not live on what another one has imported or left behind
    # The same as `nbdev_test --path ... --n_workers 0 --do_print`, without relying on where scripts are installed
    command = [sys.executable, '-c', COMMAND, str(Path('nbs')/notebook)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # nbdev also ends well when it found nothing to run, so this notebook's own name is asked for
    ran = [line for line in done.stdout.splitlines() if line.startswith('- Completed ')]
    if done.returncode or len(ran) != 1 or not ran[0].endswith(notebook.name):
        pytest.fail(f"nbs/{notebook.as_posix()}\n{done.stdout}", pytrace=False)
