"""Run notebooks from top to bottom and save their outputs: `python .ci/refresh.py nbs/api/10_*.ipynb`.

Cells that `nbdev_test` skips (`#| eval: false`, and those with a flag of `tst_flags`) keep the outputs they have;
`--flags slow` runs those too. A notebook that fails is left as it was.
"""
import argparse
import base64
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from PIL import Image

from notebooks import ROOT, find_notebooks, is_skipped, skip_flags

SKIP = 'skip-execution'


PHOTOGRAPHIC = 60_000 # Characters of a PNG from which on it shows photos, which JPEG keeps in a tenth of the space


def slim_picture(
    data:dict, # An output's pictures and texts by type; changed in place
):
    "Keep one picture, and a large one as JPEG"
    png = data.get('image/png')
    if png is None: return
    if 'image/jpeg' not in data and len(png) > PHOTOGRAPHIC:
        picture, file = Image.open(io.BytesIO(base64.b64decode(png))).convert('RGBA'), io.BytesIO()
        picture = Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture).convert('RGB')
        picture.save(file, 'JPEG', quality=70)
        data['image/jpeg'] = base64.b64encode(file.getvalue()).decode()
    if 'image/jpeg' in data and len(data['image/jpeg']) < len(png): del data['image/png']


def strip_outputs(
    cell:nbformat.NotebookNode, # A code cell that has run; changed in place
):
    "Drop what differs from run to run or teaches nothing: timings, progress bars, and the empty frames they leave"
    cell.metadata.pop('execution', None)
    kept = []
    for output in cell.outputs:
        html = output.get('data', {}).get('text/html')
        if html is not None and not re.sub(r'<style.*?</style>', '', html, flags=re.S).strip(): continue
        if html is not None and '<progress' in html and '<table' not in html: continue
        output.pop('transient', None)
        slim_picture(output.get('data', {}))
        if 'metadata' in output: output.metadata = nbformat.NotebookNode()
        kept.append(output)
    cell.outputs = kept


def refresh(
    path:Path, # A notebook; rewritten when all its cells have run
    *,
    flags:set[str], # Flags that mark cells which do not run
    timeout:int, # Longest time for one cell, in seconds
):
    "Run one notebook where it lies, as `nbdev_test` does"
    nb = nbformat.read(path, as_version=4)
    skipped = [cell for cell in nb.cells if cell.cell_type == 'code' and is_skipped(cell.source, flags)]
    for cell in skipped: cell.metadata['tags'] = [*cell.metadata.get('tags', []), SKIP]
    client = NotebookClient(
        nb, timeout=timeout, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}},
        skip_cells_with_tag=SKIP, store_widget_state=True, coalesce_streams=True, record_timing=False,
        extra_arguments=['--log-level=ERROR'])
    client.execute()
    for cell in skipped: cell.metadata['tags'].remove(SKIP)
    for cell in nb.cells:
        if cell.cell_type == 'code' and cell not in skipped: strip_outputs(cell)
    # Widgets that a cell clicks and does not show would leave their pictures behind, under names that change every time
    shown = any('application/vnd.jupyter.widget-view+json' in output.get('data', {})
                for cell in nb.cells for output in cell.get('outputs', []))
    if not (shown and nb.metadata.get('widgets', {}).get('application/vnd.jupyter.widget-state+json', {}).get('state')):
        nb.metadata.pop('widgets', None)
    nbformat.write(nb, path)


def main()->int: # Exit status: 1 if a notebook failed
    parser = argparse.ArgumentParser(description="Run notebooks from top to bottom and save their outputs")
    parser.add_argument('notebooks', nargs='*', type=Path, help="notebooks; all unless given")
    parser.add_argument('--timeout', type=int, default=600, help="longest time for one cell, in seconds (%(default)s)")
    parser.add_argument('--flags', nargs='*', default=[], help="also run cells with these flags, such as slow")
    args = parser.parse_args()

    # The kernel imports this checkout, and is the one of this environment
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    os.environ['JUPYTER_PREFER_ENV_PATH'] = '1'
    # Small trainings on few cores are far slower with many threads
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    # How long it took here is nothing to keep
    os.environ['SNAKEID_PROGRESS'] = 'off'

    failed = []
    for path in [path.resolve() for path in args.notebooks] or find_notebooks():
        started = time.monotonic()
        print(f"{os.path.relpath(path)} ...", end=' ', flush=True)
        try: refresh(path, flags=skip_flags() - set(args.flags), timeout=args.timeout)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed.append(os.path.relpath(path))
            print(f"FAILED after {time.monotonic() - started:.0f} s, left as it was\n{error}", flush=True)
            continue
        clean = 'import sys; from nbdev.clean import nbdev_clean; nbdev_clean.__wrapped__(sys.argv[1])'
        subprocess.run([sys.executable, '-c', clean, str(path)], cwd=ROOT, check=True)
        print(f"{time.monotonic() - started:.0f} s, {path.stat().st_size/1000:.0f} KB", flush=True)
    if failed: print(f"{len(failed)} failed: {' '.join(failed)}")
    return int(bool(failed))


if __name__ == '__main__': sys.exit(main())
