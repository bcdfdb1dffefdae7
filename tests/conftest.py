"What the tests share: photos to work on, and manners on a small machine"
import os
from pathlib import Path

import pytest

# Before torch is imported by anyone: many threads on few cores make small trainings ten times slower
for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(name, '1')
# Plots are drawn to files, also where there is no screen
os.environ.setdefault('MPLBACKEND', 'agg')

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def real_data()->Path: # Folder with collections of real photos
    "Real photos, whose licences keep them out of the repository; skips where there are none"
    named = os.environ.get('SNAKEID_DATA')
    if named and not Path(named).is_dir(): pytest.fail(f"SNAKEID_DATA names {named!r}, which is no folder")
    folder = Path(named) if named else ROOT.parent/'shared'/'data'
    if not folder.is_dir(): pytest.skip("no real photos here: let SNAKEID_DATA name a folder of them")
    return folder


@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
    "A small drawn collection: 48 photos of 96 pixels; tests must not change its files"
    # Imported late, so that tests which need no photos do not pay for it
    from snakeid.samples.collection import draw_collection
    return draw_collection(tmp_path_factory.mktemp('drawn'), n=48, seed=1, size=96, workers=0)
