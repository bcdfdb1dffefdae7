"Scans that are stopped, killed, run twice at once, or meet odd files"
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from snakeid.core import SnakeidError
from snakeid.data.clean import (apply_quarantine, flag_blurred, flag_dark, flag_graphics, flag_report, flag_unreadable,
    measure_quality, write_quarantine)
from snakeid.data.scan import scan_photos


@pytest.fixture
def photos(tmp_path):
    "Sixty small photos of noise"
    rng = np.random.default_rng(0)
    (tmp_path/'photos').mkdir()
    for i in range(60):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path/'photos'/f'{i:02d}.jpg')
    return pd.DataFrame(dict(path=[str(p) for p in sorted((tmp_path/'photos').iterdir())]))


SLOWLY = """
import sys, time, pandas as pd
from snakeid.data.scan import scan_photos
from snakeid.data.clean import measure_quality
import snakeid.data.scan as scan
look = scan._scan_one
def slowly(*args):
    time.sleep(.05)
    return look(*args)
scan._scan_one = slowly
def tell(done, n): print(done, flush=True)
photos = pd.DataFrame(dict(path=sys.argv[2:]))
scan_photos(photos, [measure_quality], store=sys.argv[1], part=8, workers=1, progress=tell)
"""


def count_opened(photos, store, monkeypatch):
    "Scan to the end: the table, and how many photos were opened for it"
    import snakeid.data.scan as scan
    opened, look = [], scan._scan_one
    monkeypatch.setattr(scan, '_scan_one', lambda path, *args: (opened.append(path), look(path, *args))[1])
    return scan_photos(photos, [measure_quality], store=store), opened


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason="no kill -9 on this system")
def test_a_killed_scan_goes_on_where_it_stood(photos, tmp_path, monkeypatch):
    command = [sys.executable, '-c', SLOWLY, str(tmp_path/'scan'), *photos.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        while int(run.stdout.readline()) < 30: pass
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    whole, opened = count_opened(photos, tmp_path/'scan', monkeypatch)
    assert 0 < len(opened) <= 44, "the parts that were written are used"
    monkeypatch.undo()
    pd.testing.assert_frame_equal(whole, scan_photos(photos, [measure_quality]))


def test_two_scans_at_once_share_a_store(photos, tmp_path, monkeypatch):
    start = [sys.executable, '-c', SLOWLY, str(tmp_path/'scan')]
    commands = [[*start, *photos.path[s]] for s in (slice(40), slice(20, 60))]
    first = subprocess.Popen(commands[0], stdout=subprocess.DEVNULL)
    while not (tmp_path/'scan'/'scan.json').exists(): time.sleep(.05)
    assert subprocess.run(commands[1], stdout=subprocess.DEVNULL).returncode == 0
    assert first.wait() == 0
    whole, opened = count_opened(photos, tmp_path/'scan', monkeypatch)
    assert not opened and len(whole) == 60


def test_changed_files_are_scanned_again(photos, tmp_path, monkeypatch):
    scan_photos(photos, [measure_quality], store=tmp_path/'scan')
    os.utime(photos.path[3], ns=(1, 1))
    open(photos.path[5], 'ab').write(b'more')
    os.remove(photos.path[7])
    whole, opened = count_opened(photos, tmp_path/'scan', monkeypatch)
    assert sorted(opened) == [photos.path[i] for i in (3, 5, 7)]
    assert whole.reason[7] == 'missing file'


def test_order_and_repeats_of_the_rows_do_not_matter(photos, tmp_path):
    scan = scan_photos(photos, [measure_quality], store=tmp_path/'scan')
    twice = pd.concat([photos, photos]).assign(photo_id=range(120)).sample(frac=1, random_state=0)
    again = scan_photos(twice, [measure_quality], store=tmp_path/'scan')
    assert again.path.tolist() == twice.path.tolist()
    light = dict(zip(scan.path, scan.light))
    assert again.light.tolist() == [light[p] for p in again.path]


@pytest.mark.parametrize('pause', [0, .05])
def test_a_measure_that_fails_stops_the_scan_and_keeps_the_rest(photos, tmp_path, pause):
    "A broken measure is the caller's error, so it must not become a row; after a pause several chunks are done at once"
    calls = []
    def measure(photo):
        calls.append(1)
        if len(calls) == 40: raise ZeroDivisionError('in my measure')
        return dict(n=len(calls))
    photos = photos.head(48)                             # three chunks, so that none may or may not have begun
    with pytest.raises(ZeroDivisionError, match='in my measure'):
        scan_photos(photos, [measure], store=tmp_path/'scan', part=4, workers=1,
                    progress=lambda done, n: time.sleep(pause))
    calls[:] = [1]*40
    scan_photos(photos, [measure], store=tmp_path/'scan')
    assert len(calls) == 40 + 48 - 32                    # two chunks of 16 were done before the one that failed


def test_a_full_store_says_so(photos, tmp_path):
    (tmp_path/'file').write_text('x')
    with pytest.raises(SnakeidError, match='is a file'): scan_photos(photos, store=tmp_path/'file'/'scan')


def test_flags_of_real_photos(real_data):
    "No sound photo of three collections is flagged by the default thresholds"
    folders = [real_data/c/'images' for c in ('snakes14', 'imagenet_samples', 'camtrap_sabah')]
    paths = [str(p) for folder in folders for p in sorted(folder.iterdir())]
    manifest = pd.DataFrame(dict(photo_id=range(len(paths)), path=paths))
    scan = scan_photos(manifest, [measure_quality])
    for flag in (flag_unreadable, flag_dark, flag_blurred, flag_graphics): manifest = flag(manifest, scan)
    assert manifest.flag.ne('').sum() == 0, manifest[manifest.flag != '']


def test_flags_of_drawn_photos(drawn):
    "The drawn photos pass for photos, night and far away included"
    scan = scan_photos(drawn, [measure_quality])
    sound = drawn[scan.reason.to_numpy() == ''].drop(columns='flag', errors='ignore')
    for flag in (flag_dark, flag_blurred, flag_graphics): assert flag(sound, scan).flag.eq('').all(), flag


def test_quarantine_survives_spreadsheets(photos, tmp_path):
    "Excel adds a byte order mark, and people add blanks and capitals"
    flagged = photos.assign(species='krait', flag=['near-black'] + ['']*59)
    write_quarantine(flagged, tmp_path/'list.csv')
    text = (tmp_path/'list.csv').read_text().replace('near-black,', 'near-black, Keep ')
    (tmp_path/'list.csv').write_text('\ufeff' + text, encoding='utf-8')
    assert apply_quarantine(flagged, tmp_path/'list.csv').flag.eq('').all()


def test_a_report_without_flags_or_species(photos):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert flag_report(photos).loc['all', 'flagged'] == 0
        assert flag_report(photos.head(0)).loc['all', 'photos'] == 0
