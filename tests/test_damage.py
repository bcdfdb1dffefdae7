"A photo's file is read once and judged rightly: every kind of damage, every sound oddity, and bytes nobody thought of"
import errno
import hashlib
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from snakeid.core import make_rng
from snakeid.data.damage import inspect_photo
from snakeid.data.jpeg import JpegLayout, close_jpeg
from snakeid.data.photo import PhotoError, open_photo
from snakeid.samples.collection import draw_photo
from snakeid.samples.damage import DAMAGES, write_damages
from snakeid.samples.files import encode_photo, split_jpeg
from snakeid.samples.species import SPECIES

pytestmark = pytest.mark.filterwarnings('ignore:Corrupt EXIF')
WORDS = ('missing file', 'empty file', 'truncated: ', 'damaged: ', 'not a picture that can be read', 'too small: ',
         'too large: ', 'a folder, not a photo', 'no permission', 'not a file that can be read')
PHOTO = draw_photo(SPECIES[1], 5, 224).crop((0, 0, 224, 192))      # higher than wide or wider than high: turns show
OTHERS = [draw_photo(SPECIES[i], 40 + i, 160) for i in (0, 4, 9)]
# Files to be spoilt at random, with where their picture's data begin and end
JPEGS = [encode_photo(p, quality=q, **o) for p, q, o in zip([PHOTO, *OTHERS], (88, 60, 95, 75), (
    {}, dict(optimize=True), dict(subsampling=0), dict(restart_marker_rows=1)))]
PROGRESSIVE = [encode_photo(p, progressive=True) for p in OTHERS]
PNGS = [encode_photo(p, 'PNG') for p in OTHERS]
ANY = [*JPEGS, *PROGRESSIVE, *PNGS, *(encode_photo(OTHERS[0], f) for f in ('GIF', 'WEBP', 'TIFF', 'BMP')),
       encode_photo(OTHERS[1].quantize(16), 'PNG'),
       encode_photo(OTHERS[1], 'WEBP', save_all=True, append_images=[OTHERS[2]])]
quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def look(data, suffix='.jpg'):
    "Inspect some bytes"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/f'photo{suffix}'
        path.write_bytes(data)
        found = inspect_photo(path)
        # what is accepted is what training and prediction will read
        if not found.reason: assert open_photo(path).size == (found.width, found.height)
    assert (found.photo is None) == bool(found.reason) and (not found.reason or found.reason.startswith(WORDS))
    return found


def data_of(jpeg):
    "Where the data of a JPEG begin and end"
    parts = split_jpeg(jpeg)
    start = sum(len(b) for _, b in parts[:-2])
    return start, start + len(parts[-2][1])


# ---- Every kind ----


def test_kinds():
    names = [d.name for d in DAMAGES]
    assert len(set(names)) == len(names) >= 40 and {d.expect for d in DAMAGES} == {'damaged', 'odd', 'sound'}
    assert all(d.visible for d in DAMAGES if d.expect != 'damaged')


@pytest.mark.parametrize('seed', [0, 1])
@pytest.mark.parametrize('kind', [d for d in DAMAGES if d.visible], ids=lambda d: d.name)
def test_kind_is_judged_rightly(kind, seed, tmp_path):
    photo = [PHOTO, OTHERS[0]][seed]
    path = Path(write_damages(tmp_path, photo, kinds=[kind], seed=seed).path[0])
    before, found = path.read_bytes(), inspect_photo(path)
    assert path.read_bytes() == before and found.n_bytes == len(before)
    if kind.expect == 'damaged':
        assert found.reason.startswith(WORDS) and found.photo is None
        return
    assert found.reason == '' and bool(found.notes) == (kind.expect == 'odd'), found
    # open_photo shows the photo: upright, of the right range and colours
    meant = kind.shows(photo) if kind.shows else photo
    seen, small = open_photo(path), open_photo(path, 64)
    assert seen.size == meant.size == (found.width, found.height)
    assert np.abs(np.asarray(seen, int) - np.asarray(meant, int)).mean() < 8
    assert found.photo.size == small.size and np.abs(np.asarray(found.photo, int) - np.asarray(small, int)).max() <= 2


def test_a_kind_is_the_same_at_any_time(monkeypatch):
    "The seed alone decides: no clock, no counter"
    first = [kind.make(PHOTO, make_rng(0, kind.name)) for kind in DAMAGES]
    monkeypatch.setattr('time.time', lambda: 86400.)
    for kind, made in zip(DAMAGES, first): assert kind.make(PHOTO, make_rng(0, kind.name)) == made, kind.name


@pytest.mark.parametrize('kind', [d for d in DAMAGES if not d.visible], ids=lambda d: d.name)
def test_kind_that_may_go_unseen_is_no_crash(kind):
    for seed in range(5):
        suffix, data = kind.make(PHOTO, make_rng(seed, kind.name))
        look(data, suffix)


def test_pillow_alone_would_take_many(tmp_path):
    "The corpus is not one of easy files: Pillow opens many of the damaged"
    table = write_damages(tmp_path, PHOTO, kinds=[d for d in DAMAGES if d.visible and d.expect == 'damaged'])
    taken = 0
    for path in table.path:
        try: open_photo(path)
        except PhotoError: continue
        taken += 1
    assert taken >= 15


def test_stray_bytes_are_harmless_only_as_padding():
    "A file changed by a transfer as text has stray bytes in its header, and may decode to the right number of blocks"
    kind = next(d for d in DAMAGES if 'line ends changed by a transfer' in d.name)
    for seed in range(20):
        photo = draw_photo(SPECIES[seed % 14], 100 + seed, 224).crop((0, 0, 224, 192))
        assert look(kind.make(photo, make_rng(seed))[1]).reason, seed
    for gap, sound in ((bytes(7), True), (b'\xff'*7, True), (b'stray', False)):
        assert (look(JPEGS[0][:20] + gap + JPEGS[0][20:]).reason == '') == sound


# ---- Bytes nobody thought of ----


@quick
@given(st.integers(0, 3), st.floats(0, 1))
def test_any_cut_of_a_jpeg_is_found(i, share):
    # a byte of data and the end marker are missing, or more
    assert look(JPEGS[i][:int((len(JPEGS[i]) - 3)*share)]).reason


@quick
@given(st.integers(0, 2), st.floats(0, 1))
def test_any_cut_of_a_progressive_jpeg_is_found(i, share):
    jpeg = PROGRESSIVE[i]
    assert look(jpeg[:int((len(jpeg) - 3)*share)]).reason


@quick
@given(st.integers(0, 2), st.floats(0, 1))
def test_any_cut_of_a_png_is_found(i, share):
    assert look(PNGS[i][:int((len(PNGS[i]) - 13)*share)], '.png').reason


@quick
@given(st.integers(0, 3), st.floats(0, 1), st.integers(64, 4096), st.booleans())
def test_any_hole_in_a_jpeg_is_found(i, share, n, closed):
    jpeg = JPEGS[i]
    start, end = data_of(jpeg)
    at = start + int((end - start - 64)*share)
    n = min(n, end - at)
    holed = jpeg[:at] + bytes(n) + jpeg[at+n:]
    assert look(holed if closed else holed[:-2]).reason


@quick
@given(st.integers(0, 2), st.floats(0, 1), st.integers(64, 4096))
def test_any_hole_in_a_png_is_found(i, share, n):
    png = PNGS[i]
    at = 41 + int((len(png) - 41 - 64 - 16)*share)       # behind the name of the first data chunk
    holed = png[:at] + bytes(n) + png[at+n:]
    assume(holed[:len(png)] != png)
    assert look(holed[:len(png)], '.png').reason


@settings(quick, max_examples=400)
@given(st.integers(0, len(ANY) - 1), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
       st.booleans())
def test_changed_bytes_never_crash(i, changes, header):
    data = ANY[i]
    changed = bytearray(data)
    for share, byte in changes: changed[int((len(data) - 1)*share**(6 if header else 1))] = byte
    look(bytes(changed))


@settings(quick, max_examples=300)
@given(st.sampled_from([b'', b'\xff\xd8\xff\xe0', b'\xff\xd8\xff\xda', b'\x89PNG\r\n\x1a\n', b'GIF89a', b'BM',
                        b'II*\0', b'MM\0*', b'RIFF\x99\0\0\0WEBPVP8 ', b'\0\0\0\x0cjP  \r\n\x87\n',
                        b'\0\0\0\x18ftypavif', b'P6 20 20 255\n']),
       st.binary(max_size=600))
def test_random_bytes_never_crash(start, rest):
    look(start + rest)


@settings(quick, max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_layout_takes_any_bytes(rest, i):
    jpeg = JPEGS[i]
    for data in (b'\xff\xd8' + rest, jpeg[:400] + rest + jpeg[400:]):
        layout = JpegLayout(data)
        layout.find_gap(), list(layout.strip())
        assert layout.end is None or data[layout.end-2:layout.end] == b'\xff\xd9'


def test_zeros_that_mean_something_are_no_hole():
    flat = Image.new('RGB', (900, 700)), Image.new('L', (640, 640), 255), Image.new('RGB', (500, 500), (10, 80, 30))
    for photo in flat:
        for options in ({}, dict(optimize=True), dict(progressive=True), dict(optimize=True, subsampling=0)):
            found = look(encode_photo(photo, **options))
            assert (found.reason, found.notes) == ('', ())
    # half night, half photo
    dusk = Image.new('RGB', (1200, 1200))
    dusk.paste(PHOTO, (40, 900))
    for options in ({}, dict(optimize=True), dict(progressive=True)):
        assert look(encode_photo(dusk, **options)).reason == ''
    for format in ('WEBP', 'PNG', 'GIF', 'AVIF', 'JPEG2000'):
        assert look(encode_photo(Image.new('RGB', (1500, 1000)), format), '.x').reason == ''


# ---- Files that are none ----


def test_no_file(tmp_path):
    (tmp_path/'x.jpg').mkdir()
    (tmp_path/'link.jpg').symlink_to('nowhere.jpg')
    wanted = {'gone.jpg': 'missing file', 'link.jpg': 'missing file', 'a\0b.jpg': 'missing file',
              'x.jpg': 'a folder, not a photo',
              'n'*300 + '.jpg': f'not a file that can be read: {os.strerror(errno.ENAMETOOLONG)}'}
    if hasattr(os, 'mkfifo'):
        os.mkfifo(tmp_path/'pipe.jpg')
        wanted['pipe.jpg'] = 'not a file that can be read'
    for name, reason in wanted.items():
        found = inspect_photo(f'{tmp_path}/{name}')
        assert (found.reason, found.digest, found.n_bytes, found.photo) == (reason, '', 0, None)


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    (tmp_path/'x.jpg').write_bytes(JPEGS[0])
    (tmp_path/'x.jpg').chmod(0)
    assert inspect_photo(tmp_path/'x.jpg').reason == 'no permission to read it'


def test_file_without_its_end_is_opened(tmp_path):
    "A photo that Pillow alone refuses, though every pixel is there"
    for jpeg in (*JPEGS, encode_photo(PHOTO, progressive=True)):
        (tmp_path/'x.jpg').write_bytes(jpeg)
        whole = open_photo(tmp_path/'x.jpg')
        assert close_jpeg(jpeg[:-2]) == jpeg
        for n in (1, 2):
            (tmp_path/'x.jpg').write_bytes(jpeg[:-n])
            with pytest.raises(OSError), Image.open(tmp_path/'x.jpg') as im: im.load()
            assert open_photo(tmp_path/'x.jpg') == whole
        (tmp_path/'x.jpg').write_bytes(jpeg[:-3])
        with pytest.raises(PhotoError, match='truncated'): open_photo(tmp_path/'x.jpg')


def test_digest(tmp_path):
    for name in ('a.jpg', 'b.jpg', 'c.jpg'): (tmp_path/name).write_bytes(JPEGS[0] + b'c'*(name == 'c.jpg'))
    a, b, c = (inspect_photo(tmp_path/name).digest for name in ('a.jpg', 'b.jpg', 'c.jpg'))
    assert a == b != c and a == hashlib.blake2b(JPEGS[0], digest_size=16).hexdigest()
    (tmp_path/'a.jpg').write_bytes(b'spoilt')
    assert len(inspect_photo(tmp_path/'a.jpg').digest) == 32
    assert inspect_photo(tmp_path/'b.jpg', digest=False).digest == ''


# ---- Many at once ----


def test_threads_agree_and_leave_nothing_open(tmp_path):
    table = write_damages(tmp_path, OTHERS[2])
    one_by_one = [inspect_photo(p) for p in table.path]
    descriptors = Path('/proc/self/fd')
    before, threads = len(list(descriptors.iterdir())) if descriptors.exists() else 0, threading.active_count()
    with ThreadPoolExecutor(8) as pool: at_once = list(pool.map(inspect_photo, [*table.path]*3))
    assert at_once == one_by_one*3
    assert threading.active_count() == threads
    if descriptors.exists(): assert len(list(descriptors.iterdir())) <= before


def test_real_photos_are_sound(real_data):
    paths = sorted(p for p in real_data.rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg', '.png'))
    if not paths: pytest.skip(f"no photos below {real_data.name}")
    with ThreadPoolExecutor(2) as pool: found = list(pool.map(inspect_photo, paths))
    assert [(p.name, o.reason) for p, o in zip(paths, found) if o.reason] == []
    for path, o in list(zip(paths, found))[::40]: assert o.photo.size == open_photo(path, 64).size
