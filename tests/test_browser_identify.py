"`snakeid app` in a browser: a photo, a file that is none, and a photo again; then the end"
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytest.importorskip('voila', reason="the extra voila is not installed")

pytestmark = pytest.mark.skipif(not os.path.isdir('/proc'), reason="processes that are left are looked for in /proc")

# A shell lets the programs that it starts in the background ignore Ctrl-C, and what they start does so too
COMMAND = ('import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); '
           'from snakeid.cli import main; sys.exit(main(sys.argv[1:]))')
PATIENCE = 240_000 # Milliseconds; a busy machine takes half a minute to load PyTorch


def list_children(folder):
    "Processes whose command line or folder lies below a folder"
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', encoding='utf-8', errors='replace') as f: told = f.read()
            if str(folder) in told or os.readlink(f'/proc/{pid}/cwd').startswith(str(folder)): found.append(int(pid))
        except OSError: continue
    return [p for p in found if p != os.getpid()]


class App:
    "The command as a process of its own, and what it printed"
    def __init__(self, folder, port, *words):
        self.folder, self.address, self.told = folder, f'http://127.0.0.1:{port}/', []
        argv = [sys.executable, '-c', COMMAND, 'app', *map(str, words), '--port', str(port), '--no-browser']
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        start_new_session=True, env={**os.environ, 'TMPDIR': str(folder)})
        self.up = threading.Event()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        "Read until the end"
        for line in self.process.stdout:
            self.told.append(line)
            if self.address in line: self.up.set()
        self.up.set()

    def end(self):
        "Send what Ctrl-C sends, and return the exit status"
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(90)

    def clean(self):
        "Leave nothing behind, however the test ended"
        if self.process.poll() is None: self.process.kill()
        self.process.wait()
        for pid in list_children(self.folder):
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: continue


@pytest.fixture
def app(trained, free_port, tmp_path):
    "The app of a small run, with a table in which every species is venomous"
    species = sorted(set(pd.read_csv(trained.labels).scientific_name))
    pd.DataFrame(dict(scientific_name=species, venomous='yes')).to_csv(tmp_path/'taxa.csv', index=False)
    folder = tmp_path/'temporary'
    folder.mkdir()
    app = App(folder, free_port(), trained.run, '--taxa', tmp_path/'taxa.csv')
    app.species = species
    try:
        assert app.up.wait(PATIENCE/1000) and app.process.poll() is None, ''.join(app.told)
        yield app
    finally: app.clean()


def test_identify_in_a_browser(browser, app, trained, tmp_path):
    (tmp_path/'notes.txt').write_text('It was brown and this long.')
    photos = sorted(trained.images.iterdir())[:2]
    large = tmp_path/'large.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (2000, 2200, 3), np.uint8)).save(large)
    assert 11e6 < large.stat().st_size < 50e6
    page = browser.new_page(viewport=dict(width=390, height=800))
    try:
        page.set_default_timeout(PATIENCE)
        page.goto(app.address)
        place = page.get_by_label('Choose or take a photo')
        place.wait_for()
        def send(path):
            "Choose a file as a user does"
            with page.expect_file_chooser() as chooser: place.click()
            chooser.value.set_files(path)
        def drop(*paths, x=200, y=60):
            "Drag files onto the page, and let go"
            cursor = page.context.new_cdp_session(page)
            data = dict(items=[], files=[str(p) for p in paths], dragOperationsMask=1)
            for kind in ('dragEnter', 'dragOver', 'drop'):
                cursor.send('Input.dispatchDragEvent', dict(type=kind, x=x, y=y, data=data))
        answer = page.locator('h3', has_text=re.compile('Unknown|' + '|'.join(app.species)))

        send(photos[0])
        answer.wait_for()
        page.get_by_text(re.compile('It may be venomous')).wait_for()
        page.get_by_text(re.compile('no medical device')).wait_for()
        assert page.get_by_alt_text('The photo that was sent').evaluate('i => i.complete && i.naturalWidth > 0')

        send(tmp_path/'notes.txt')
        page.get_by_text('The file is no photo that can be read: send a JPEG, PNG or WebP').wait_for()
        answer.wait_for(state='detached')

        drop(photos[1], x=200, y=780)                        # beside the place, at the foot of the page
        answer.wait_for()
        page.get_by_text('no photo that can be read').wait_for(state='detached')
        assert page.url == app.address       # a page that does not take a photo is replaced by it
        drop(*photos)
        page.get_by_text('2 files came at once: send one photo at a time').wait_for()
        send(large)                                          # more than a message of Jupyter's servers may hold
        answer.wait_for()
        page.get_by_text('2 files came at once').wait_for(state='detached')
        with open(tmp_path/'film.jpg', 'wb') as film: film.truncate(10**9)
        before = time.monotonic()
        send(tmp_path/'film.jpg')                            # is refused before it travels
        page.get_by_text('The file has 1000 MB, and at most 50 MB are taken').wait_for()
        assert time.monotonic() - before < 30
        answer.wait_for(state='detached')
        send(photos[0])
        answer.wait_for()
        assert page.evaluate('document.documentElement.scrollWidth') <= 390
    finally: page.close()
    # A photo leaves nothing in the temporary folder of the server and its kernels
    left = [p for p in app.folder.rglob('*') if p.suffix in ('.jpg', '.png') or p.name.startswith('photo')]
    assert left == []
    assert app.end() == 0, ''.join(app.told)
    told = ''.join(app.told)
    assert 'ended' in told and 'Traceback' not in told and photos[0].name not in told and 'notes.txt' not in told
    deadline = time.monotonic() + 60
    while list_children(app.folder) and time.monotonic() < deadline: time.sleep(.1)
    assert list_children(app.folder) == []
    assert list(app.folder.glob('snakeid-*')) == [] == list(app.folder.glob('voila_*'))
