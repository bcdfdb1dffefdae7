"What the tests share: photos to work on, and manners on a small machine"
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    "A drawn collection of 36 photos of 64 pixels, 3 species; tests must not change its files"
    from snakeid.samples.collection import draw_collection
    folder = tmp_path_factory.mktemp('tiny')
    draw_collection(folder, n=36, seed=3, species=3, tail=1., size=64, workers=0)
    return SimpleNamespace(images=folder/'images', labels=folder/'train_labels.csv')


@pytest.fixture(scope='session')
def call():
    "Run a command of `snakeid` in this process: its exit status, what it printed and its messages"
    def _call(*argv):
        from snakeid.cli import main
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err): status = main([str(a) for a in argv])
        return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())
    return _call


@pytest.fixture(scope='session')
def train(call):
    "Train as briefly as can be: `train(out, images, labels)`, with more options behind"
    def _train(out, images, labels=None, *options):
        labels = ('--labels', labels) if labels else ()
        return call('train', '--images', images, *labels, '--out', out, '--size', 64, '--train-size', 64,
                    '--epochs', 1, '--frozen-epochs', 1, '--lr', .003, *options)
    return _train


@pytest.fixture(scope='session')
def trained(tiny, train, tmp_path_factory):
    "A finished run on the tiny collection; tests must not change its files"
    run = tmp_path_factory.mktemp('trained')/'run'
    done = train(run, tiny.images, tiny.labels)
    assert done.status == 0, done.err
    return SimpleNamespace(run=run, out=done.out, images=tiny.images, labels=tiny.labels)


@pytest.fixture(scope='session')
def look():
    "All that lies below a folder: `{path: bytes}`, None for folders; to compare before and after"
    def _look(folder):
        def read(p): return None if p.is_dir() else p.read_bytes() if p.exists() else b'(broken link)'
        return {p.relative_to(folder).as_posix(): read(p) for p in sorted(Path(folder).rglob('*'))}
    return _look


@pytest.fixture(scope='session')
def browser():
    "Chromium without a window; skips with the reason where there is none"
    sync = pytest.importorskip('playwright.sync_api', reason="playwright is not installed: it comes with the dev extra")
    found = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not found: pytest.skip("no browser here: install chromium")
    flags = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
             '--disable-component-update --disable-sync').split()
    with sync.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=found, args=flags, timeout=60_000)
        try: yield chromium
        finally: chromium.close()


@pytest.fixture(scope='session')
def free_port():
    "A function that finds a port nobody listens on"
    def _free_port():
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            return s.getsockname()[1]
    return _free_port


@pytest.fixture(scope='session')
def serve(free_port):
    "Run a server: `with serve(folder, *command) as address`, `{port}` in the command; ended with its children"
    if os.name == 'nt': pytest.skip("a server's children are ended by process group, which Windows lacks")
    @contextmanager
    def _serve(folder, *command, **env):
        port, told = free_port(), folder/'server.log'
        env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JUPYTER_PREFER_ENV_PATH': '1', **env}
        with told.open('w') as log:
            words = [str(word).format(port=port) for word in command]
            server = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                      start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while True:
                with suppress(OSError), socket.create_connection(('127.0.0.1', port), 1): break
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the server does not start:\n{told.read_text()}")
                time.sleep(.1)
            yield f'http://127.0.0.1:{port}/'
        except BaseException:
            print(told.read_text()[-4000:])
            raise
        finally:
            # The group is gone where the server has ended by itself
            with suppress(ProcessLookupError): os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    return _serve


@pytest.fixture
def six(tmp_path):
    "A folder of six flagged photos of two species with `photos.csv`, and a function that writes a notebook of cells"
    import pandas as pd

    from snakeid.samples.collection import draw_photo
    table = pd.DataFrame(dict(photo_id=[f'p{i}' for i in range(6)], path=[f'{i}.jpg' for i in range(6)],
                              species=['boa', 'cobra']*3, flag='blurred: sharpness 3'))
    for i in range(6): draw_photo(None, i, 96).save(tmp_path/f'{i}.jpg')
    table.to_csv(tmp_path/'photos.csv', index=False)
    def write(name, *codes):
        cells = [dict(cell_type='code', execution_count=None, id=f'cell{i}', metadata={}, outputs=[], source=code)
                 for i, code in enumerate(codes)]
        kernel = dict(name='python3', language='python', display_name='Python 3')
        (tmp_path/name).write_text(json.dumps(dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4,
                                                   nbformat_minor=5)))
    return SimpleNamespace(folder=tmp_path, write=write)
