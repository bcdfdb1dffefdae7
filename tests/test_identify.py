"One photo and what a run says of it: uploads of all kinds, the page, the button, and where the network looked"
import io
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

NASTY = '<script>alert(1)</script>" onerror="alert(2)'


def encode(photo, **options):
    "A picture as the bytes of a file"
    out = io.BytesIO()
    photo.save(out, **options)
    return out.getvalue()


def claim_png(width, height):
    "A PNG whose header promises a size, with nothing behind it"
    def chunk(kind, body):
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b''))


class Tags(HTMLParser):
    "Tags with their attributes, and the text between them"
    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], []
        self.feed(html)
    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))
    def handle_data(self, data): self.text.append(data)


@pytest.fixture(scope='module')
def photo(tiny):
    "The bytes of a photo"
    return sorted(tiny.images.iterdir())[0].read_bytes()


@pytest.fixture(scope='module')
def source(trained):
    "The trained run, opened once"
    from snakeid.explore.identify import open_source
    return open_source(trained.run)


@pytest.fixture(scope='module')
def species(source): return source.bundle.species


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    "A folder of their own for temporary files"
    folder = tmp_path/'temporary'
    folder.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    return folder


# ---- the answer ----


def test_says_what_prediction_says(source, tiny):
    from snakeid.explore.identify import identify_photo
    from snakeid.predict.batch import predict_photos
    for path in sorted(tiny.images.iterdir())[:6]:
        found = identify_photo(source, path.read_bytes())
        row = predict_photos(source.bundle, path, unknown='energy', sets=True).iloc[0]
        told = found.species, found.nearest, found.confidence, found.vote_share
        assert told == (row.species, row.named, row.confidence, row.vote_share)
        assert '; '.join(p.species for p in found.possible) == row.candidates and found.coverage == .9
        assert found.nearest in [p.species for p in found.possible] and 'medical' in found.advice
        probabilities = [p.probability for p in found.possible]
        assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1.0001


def test_takes_bytes_of_every_kind_and_files(source, tiny, trained, photo):
    from snakeid.explore.identify import identify_photo
    from snakeid.report.page import read_run
    path = sorted(tiny.images.iterdir())[0]
    found = identify_photo(source, photo)
    for same in (bytearray(photo), memoryview(photo), path, str(path)): assert identify_photo(source, same) == found
    assert identify_photo(trained.run, photo) == identify_photo(read_run(trained.run), photo) == found
    alone = identify_photo(trained.run/'bundle', photo)
    assert alone.lookalikes == [] and alone.confidence == found.confidence
    assert any('without its run' in n for n in alone.notes)


@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'AVIF'])
def test_takes_formats(source, photo, kind):
    from snakeid.explore.identify import identify_photo
    if kind not in Image.registered_extensions().values(): pytest.skip(f"this Pillow knows no {kind}")
    assert identify_photo(source, encode(Image.open(io.BytesIO(photo)), format=kind)).species


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'CMYK', 'I;16', '1'])
def test_takes_modes(source, photo, mode):
    from snakeid.explore.identify import identify_photo
    im = Image.open(io.BytesIO(photo))
    im = Image.fromarray(np.asarray(im.convert('L')).astype(np.uint16) << 8) if mode == 'I;16' else im.convert(mode)
    assert identify_photo(source, encode(im, format='TIFF')).species


def test_turns_the_photo_upright(source):
    from snakeid.explore.identify import identify_photo
    lying = Image.new('RGB', (90, 60), 'blue')
    exif = Image.Exif()
    exif[0x112] = 6
    found = identify_photo(source, encode(lying, format='JPEG', exif=exif))
    for picture in (found.picture, found.attention or found.picture):
        assert Image.open(io.BytesIO(picture)).size == (60, 90)


def test_says_where_no_map_is(source, photo, monkeypatch):
    import snakeid.explore.identify as module
    from snakeid.core import SnakeidError
    with monkeypatch.context() as m:
        m.setattr(module, 'find_attention', lambda *args: np.zeros((64, 64), np.float32))
        found = module.identify_photo(source, photo)
    assert found.attention == b'' and any('Nothing in the photo speaks' in n for n in found.notes)
    def refuse(*args): raise SnakeidError('an MLP has no map')
    with monkeypatch.context() as m:
        m.setattr(module, 'find_attention', refuse)
        found = module.identify_photo(source, photo)
    assert found.attention == b'' and found.picture and any('an MLP has no map' in n for n in found.notes)


def test_shows_large_photos_small(source):
    from snakeid.explore.identify import identify_photo
    wide = Image.effect_noise((3000, 1000), 60).convert('RGB')
    found = identify_photo(source, encode(wide, format='JPEG'))
    assert Image.open(io.BytesIO(found.picture)).size == (400, 133) and len(found.picture) < 100_000


def test_without_calibration(source, photo):
    from snakeid.explore.identify import identify_photo, show_identification
    found = identify_photo(replace(source, bundle=replace(source.bundle, calibration={})), photo)
    assert found.coverage is None and found.species == found.nearest != 'unknown'
    probabilities = [p.probability for p in found.possible]
    assert sum(probabilities) >= .95 > sum(probabilities[:-1])
    page = show_identification(found)
    assert 'not calibrated' in page and 'nothing is promised' in page


def test_a_network_that_names_several(source, tiny, photo):
    from snakeid.explore.identify import identify_photo
    from snakeid.predict.batch import predict_photos
    bundle = replace(source.bundle, several=True, calibration={})
    found = identify_photo(bundle, photo)
    assert found.species in [p.species for p in found.possible] and found.coverage is None
    row = predict_photos(bundle, sorted(tiny.images.iterdir())[0], probabilities=True).iloc[0]
    assert {p.species for p in found.possible} == {s for s in bundle.species if row[f'p:{s}'] >= .05}


def test_unknown(source, photo):
    from snakeid.explore.identify import identify_photo, show_identification
    strict = json.loads(json.dumps(source.bundle.calibration))
    strict['four/mean']['thresholds']['energy'] = 1e9
    found = identify_photo(replace(source, bundle=replace(source.bundle, calibration=strict)), photo)
    assert found.species == 'unknown' and found.nearest in source.bundle.species
    page = show_identification(found)
    assert 'Unknown' in page and f'it would be <i>{found.nearest}</i>' in page and 'Were it one of these' in page
    assert not any('cannot be shown' in n for n in found.notes)      # the map is of the nearest species


# ---- venom ----


@pytest.fixture
def taxa(tmp_path, species):
    "A table in which the first species is venomous, the second harmless, and the third not listed"
    pd.DataFrame(dict(scientific_name=species[:2], venomous=['yes', 'no'])).to_csv(tmp_path/'taxa.csv', index=False)
    return tmp_path/'taxa.csv'


def test_venom(source, trained, taxa, species, photo):
    from snakeid.explore.identify import LookAlike, Possible, identify_photo, open_source, warn_of_venom
    known = open_source(trained.run, taxa)
    assert known.venom == dict(zip(species, ('venomous', 'harmless', 'not known'))) and open_source(known) is known
    found = identify_photo(known, photo)
    assert [p.venom for p in found.possible] == [known.venom[p.species] for p in found.possible]
    assert ('venomous: ' + species[0] in found.warning) == (species[0] in [p.species for p in found.possible])
    bad, good, open_ = Possible('A', .04, 'venomous'), Possible('B', .9, 'harmless'), Possible('C', .02, 'not known')
    assert warn_of_venom([good, bad, open_]) == 'It may be venomous: A (4%).'       # also when it is not the first
    assert 'take it for venomous' in warn_of_venom([good, open_])
    assert 'does not know this animal' in warn_of_venom([good], unknown=True)
    assert warn_of_venom([good]) == '' == warn_of_venom([Possible('A', 1.)], unknown=True)
    double = LookAlike('D', 2, venom='venomous')
    assert 'mixed up with a venomous species: D' in warn_of_venom([good], lookalikes=[double])
    assert 'D' not in warn_of_venom([bad], lookalikes=[double])
    assert warn_of_venom([Possible('A', .001, 'venomous')]) == 'It may be venomous: A (under 1%).'
    assert warn_of_venom([good, bad], unknown=True) == 'It may be venomous: A (4%).'


def test_the_warning_of_a_photo(source, species, photo, monkeypatch):
    "What is known of venom reaches the answer: an unknown animal, a harmless one with a venomous double, and no table"
    import snakeid.explore.identify as module
    harmless = dict.fromkeys(species, 'harmless')
    monkeypatch.setattr(module, 'find_lookalikes', lambda *args: [module.LookAlike('D', 2)])
    found = module.identify_photo(replace(source, venom=harmless | dict(D='venomous')), photo)
    assert [o.venom for o in found.lookalikes] == ['venomous'] and 'a venomous species: D' in found.warning
    strict = json.loads(json.dumps(source.bundle.calibration))
    strict['four/mean']['thresholds']['energy'] = 1e9
    bundle = replace(source.bundle, calibration=strict)
    found = module.identify_photo(replace(source, bundle=bundle, venom=harmless), photo)
    assert 'does not know this animal' in found.warning and found.warning in module.show_identification(found)
    told = 'Nothing is known here of venom: that wants a table of taxa.'
    assert told not in found.notes and told in module.identify_photo(source, photo).notes


def test_what_is_not_known_is_marked_and_nobody_is_certain(source, photo):
    from snakeid.explore.identify import Possible, identify_photo, show_identification, warn_of_venom
    sure = [Possible('A', .9999, 'venomous'), Possible('B', 1e-5, 'not known'), Possible('C', 0., 'harmless')]
    page = show_identification(replace(identify_photo(source, photo), confidence=.9999, possible=sure))
    assert '⚠ venomous' in page and '⚠ venom not known' in page and '⚠ harmless' not in page
    assert 'over 99% sure' in page and '>over 99%<' in page and '>under 1%<' in page and '>0%<' in page
    assert warn_of_venom(sure) == 'It may be venomous: A (over 99%).'


def test_venom_table_of_other_species(trained, tmp_path):
    from snakeid.core import SnakeidError
    from snakeid.explore.identify import open_source
    (tmp_path/'other.csv').write_text('scientific_name,venomous\nNaja naja,yes\n')
    with pytest.raises(SnakeidError, match='none of the 3 species'): open_source(trained.run, tmp_path/'other.csv')


# ---- look-alikes ----


@pytest.fixture
def confused(source, tmp_path):
    "A run of species A to D: A and B are taken for each other, A once for C, and D never"
    test = [('A', 'B')]*2 + [('B', 'A')] + [('A', 'C')] + [('B', 'C')]*5 + [('D', 'D'), ('C', None), ('A', 'unknown')]
    rows = [(str(i), truth, 'test') for i, (truth, _) in enumerate(test)]
    rows += [(f'{s}{i}', s, 'train') for s in 'ABCD' for i in range(9)]
    manifest = pd.DataFrame(rows, columns=['photo_id', 'species', 'split']).assign(flag='')
    manifest['path'] = [str(tmp_path/f'{i}.png') for i in manifest.photo_id]
    predictions = pd.DataFrame([dict(photo_id=str(i), species=n, flag='') for i, (_, n) in enumerate(test)])
    for p in manifest.path: Image.new('RGB', (32, 32), 'red').save(p)
    return replace(source.run, manifest=manifest, predictions=predictions)


def test_lookalikes_of_both_directions(confused):
    from snakeid.explore.identify import find_lookalikes
    found = find_lookalikes(confused, 'A')
    assert [(o.species, o.photos) for o in found] == [('B', 3), ('C', 1)]
    assert [(o.species, o.photos) for o in find_lookalikes(confused, 'B', n=1)] == [('C', 5)]
    assert find_lookalikes(confused, 'D') == []
    assert [Path(p).name for p in found[0].pictures] == ['B0.png', 'B1.png', 'B2.png']


def test_lookalikes_leave_out_flagged_photos(confused):
    from snakeid.explore.identify import find_lookalikes
    flag = confused.manifest.photo_id.map(dict(B0='near-black')).fillna('')
    found = find_lookalikes(replace(confused, manifest=confused.manifest.assign(flag=flag)), 'A')
    assert [Path(p).name for p in found[0].pictures] == ['B1.png', 'B2.png', 'B3.png']


def test_lookalikes_whose_photos_are_gone(confused, tmp_path):
    from snakeid.explore.identify import find_lookalikes
    for i in (0, 2, 4): (tmp_path/f'B{i}.png').unlink()
    assert [Path(p).name for p in find_lookalikes(confused, 'A')[0].pictures] == ['B1.png', 'B3.png', 'B5.png']
    for p in tmp_path.glob('*.png'): p.unlink()
    assert [o.pictures for o in find_lookalikes(confused, 'A')] == [(), ()]


def test_a_run_that_is_read_already_is_not_read_again(confused):
    from snakeid.explore.identify import open_source
    assert open_source(confused).run is confused


def test_a_run_that_does_not_fit(source, confused, photo):
    from snakeid.explore.identify import identify_photo
    broken = replace(confused, predictions=confused.predictions.head(2))
    found = identify_photo(replace(source, run=broken), photo)
    assert found.lookalikes == [] and any('have no prediction' in n for n in found.notes)


# ---- the page ----


def test_page_escapes_and_describes(source, species, photo, confused, tmp_path):
    from snakeid.explore.identify import identify_photo, show_identification
    names = [NASTY, 'A & B <b>', "c' onclick='x"]
    new = dict(zip('ABC', names))
    manifest, predictions = (t.assign(species=t.species.replace(new))
                             for t in (confused.manifest, confused.predictions))
    nasty = replace(source, bundle=replace(source.bundle, species=names), venom=dict.fromkeys(names, 'venomous'),
                    run=replace(confused, manifest=manifest, predictions=predictions))
    page = show_identification(identify_photo(nasty, photo))
    tags = Tags(page)
    known = 'div h3 h4 p b i br figure img figcaption table tr td span ul li'.split()
    assert {t for t, _ in tags.found} <= set(known)
    assert not any(a.startswith('on') for _, attrs in tags.found for a in attrs)
    images = [attrs for t, attrs in tags.found if t == 'img']
    assert len(images) >= 4 and all(a['alt'].strip() and a['src'].startswith('data:image/jpeg;base64,') for a in images)
    assert any(n in ''.join(tags.text) for n in names) and str(tmp_path) not in page and 'medical' in page
    assert 'color:#000' not in page and 'background:#fff' not in page                # legible on any ground
    assert any(attrs.get('role') == 'alert' for _, attrs in tags.found)


# ---- uploads ----

BAD = {
    'empty': (b'', 'is empty'),
    'text': (b'It was brown and this long.', 'no photo that can be read'),
    'html': (b'<!DOCTYPE html><html></html>', 'no photo that can be read'),
    'svg': (b'<svg xmlns="http://www.w3.org/2000/svg" width="90" height="90"/>', 'no photo that can be read'),
    'postscript': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n', 'no photo that can be read'),
    'film': (b'\0\0\0\x18ftypmp42' + bytes(500), 'no photo that can be read'),
    'zeros': (bytes(5000), 'no photo that can be read'),
    'start of a JPEG': (b'\xff\xd8\xff\xe0', 'no photo that can be read'),
    '100 MB': (b'\xff\xd8\xff' + bytes(100_000_000), '100 MB, and at most 50 MB'),
    '900 million pixels': (claim_png(30_000, 30_000), 'over 179 million'),
    '81 million pixels': (claim_png(9_000, 9_000), '9000×9000'),
    'no pixels': (claim_png(0, 10), 'no photo that can be read'),
    'too small': (encode(Image.new('RGB', (9, 300)), format='PNG'), 'too few to show an animal'),
    'header of a PNG': (claim_png(300, 300), 'cut off'),
    'HEIC': (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(100), "pip install 'snakeid[heic]'"),
}


@pytest.mark.parametrize('name', BAD)
def test_refuses_in_one_sentence(source, name, elsewhere, look, monkeypatch):
    from snakeid.core import SnakeidError
    from snakeid.explore.identify import identify_photo
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    data, part = BAD[name]
    with pytest.raises(SnakeidError) as e: identify_photo(source, data)
    said = str(e.value)
    assert part in said and '\n' not in said and str(elsewhere) not in said and len(said) < 300
    assert look(elsewhere) == {}


def test_cut_off_photos(source, tiny):
    from snakeid.core import SnakeidError
    from snakeid.explore.identify import identify_photo
    data = encode(Image.effect_noise((600, 400), 50).convert('RGB'), format='JPEG')
    for share in (.01, .1, .5, .9):
        with pytest.raises(SnakeidError) as e: identify_photo(source, data[:int(share*len(data))])
        assert 'cut off' in str(e.value) or 'read' in str(e.value), share
    whole, nearly = identify_photo(source, data), identify_photo(source, data[:-2])  # only the end marker is missing
    assert nearly.nearest == whole.nearest and nearly.confidence == pytest.approx(whole.confidence, abs=1e-3)


def test_files_that_are_none(source, tmp_path):
    from snakeid.core import SnakeidError
    from snakeid.explore.identify import identify_photo
    with (tmp_path/'huge.jpg').open('wb') as f: f.truncate(10**12)
    for bad, part in ((tmp_path/'gone.jpg', 'check its name'), (tmp_path, 'is a folder'), (7, 'found int'),
                      (tmp_path/'huge.jpg', 'at most 50 MB')):
        with pytest.raises(SnakeidError, match=part): identify_photo(source, bad)


def test_heic_with_the_extra(source, tiny):
    heif = pytest.importorskip('pillow_heif', reason="the extra heic is not installed")
    from snakeid.explore.identify import identify_photo
    heif.register_heif_opener()
    im = Image.open(sorted(tiny.images.iterdir())[0])
    assert identify_photo(source, encode(im, format='HEIF')).species


MEASURE = '''
import sys
from pathlib import Path
from snakeid.explore.uploads import hold_upload
from snakeid.data.photo import open_photo
from snakeid.predict.views import WHOLE, read_views
def peak(): return int([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0].split()[1])/1e3
data, before = Path(sys.argv[1]).read_bytes(), peak()
with hold_upload(data) as path:
    open_photo(path, least=400)
    assert not isinstance(next(iter(read_views([path], (WHOLE,), 224, 1, ahead=1))), str)
print(peak() - before)
'''


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason="the system does not tell the peak of memory")
def test_many_pixels_cost_little_memory(tmp_path):
    # 144 million pixels would take 432 MB; at an eighth of their sides they take 7
    Image.new('RGB', (12_000, 12_000), 'green').save(tmp_path/'large.jpg')
    done = subprocess.run([sys.executable, '-c', MEASURE, str(tmp_path/'large.jpg')], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 120, f"{done.stdout} MB"


def test_progressive_photos_are_held_to_fewer_pixels():
    # Their coefficients are kept whole, whatever the scale
    from snakeid.core import SnakeidError
    from snakeid.explore.uploads import check_upload
    large = Image.new('L', (7000, 7000))
    assert check_upload(encode(large, format='JPEG')) == '.jpg'
    two = encode(large, format='MPO', save_all=True, append_images=[Image.new('L', (64, 64))])
    assert Image.open(io.BytesIO(two)).format == 'MPO' and check_upload(two) == '.jpg'
    with pytest.raises(SnakeidError, match='7000×7000'): check_upload(encode(large, format='JPEG', progressive=True))


def test_nothing_is_kept_or_told(source, trained, photo, elsewhere, look, capfd):
    from snakeid.explore.identify import identify_photo
    before, here = look(trained.run), set(os.listdir())
    identify_photo(source, photo)
    assert look(elsewhere) == {} and look(trained.run) == before and set(os.listdir()) == here
    assert capfd.readouterr() == ('', '')


# ---- the button ----


@contextmanager
def sender(source):
    "The widget's parts, and a function that does what a browser does when a file is chosen"
    from snakeid.explore.identify import identify
    zone, about, status, answer = identify(source).children
    def send(data, piece=100_000):
        zone.receive(dict(name='photo', size=len(data)))
        for at in range(0, len(data), piece): zone.receive(dict(name='photo', at=at), [memoryview(data)[at:at+piece]])
    yield zone, status, answer, send


def test_button(source, photo, species, elsewhere, look):
    with sender(source) as (zone, status, answer, send):
        assert not zone.whole_page
        for name in BAD:
            if name == 'HEIC': continue
            send(BAD[name][0])
            assert BAD[name][1] in status.value and answer.value == '' and zone.receive.data == b'', name
        send(photo)
        assert any(s in answer.value for s in species) and status.value == '' and zone.receive.data == b''
        send(BAD['text'][0])
        assert answer.value == ''                        # an answer does not stand beside another photo's error
        for _ in range(2): send(photo)                   # the same once more
        assert any(s in answer.value for s in species)
    assert look(elsewhere) == {}


def test_button_survives_what_nobody_foresaw(source, photo, monkeypatch, capfd):
    import snakeid.explore.identify as module
    with sender(source) as (zone, status, answer, send):
        with monkeypatch.context() as m:
            m.setattr(module, 'predict_photos', lambda *args, **kwargs: 1/0)
            send(photo)
        assert 'ZeroDivisionError' in status.value and answer.value == ''
        send(photo)
        assert answer.value and not status.value


@pytest.mark.parametrize('package', ['ipywidgets', 'anywidget'])
def test_without_widgets(trained, monkeypatch, package):
    from snakeid.explore.identify import identify
    monkeypatch.setitem(sys.modules, package, None)
    page = identify(trained.run)
    assert 'identify_photo' in page and f'pip install {package}' in page and page == page._repr_html_()


def test_dropzone_beside_another_file():
    "What is refused meanwhile does not stop a photo on its way, and of what is given up nothing is kept"
    from snakeid.explore.dropzone import Receiver
    files, told, heard = [], [], []
    receiver = Receiver(files.append, told.append, lambda size: None, heard.append)
    receiver(dict(name='a', size=10))
    receiver(dict(name='a', at=0), [b'12345'])
    receiver(dict(name='', trouble='2 files came at once'))
    receiver(dict(name='a', at=5), [b'67890'])
    assert files == [b'1234567890'] and heard[-1] == dict(name='a', done=True) and receiver.data == b''
    receiver(dict(name='b', size=3))
    receiver(dict(name='b', at=0), [b'12345'])
    assert 'changed' in told[-1] and receiver.data == b'' and heard[-1] == dict(name='b', done=True)
    receiver(dict(name='c', size=10))
    receiver(dict(name='c', at=0), [b'12345'])
    receiver(dict(name='c', trouble='the browser cannot read the photo'))
    assert receiver.data == b'' and len(files) == 1
    receiver(dict(name='d', size=10))
    receiver(dict(name='e', size=10))                      # the page is told that the one before it will not come
    assert heard[-2:] == [dict(name='d', done=True), dict(name='e', got=0)]


@pytest.mark.parametrize('brand,others', [(b'mif1', b'mif1avifmiaf'), (b'msf1', b'avisheic')])
def test_avif_is_not_taken_for_heic(monkeypatch, brand, others):
    from snakeid.core import SnakeidError
    from snakeid.explore.uploads import check_upload
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    def head(others): return (16 + len(others)).to_bytes(4, 'big') + b'ftyp' + brand + bytes(4) + others
    with pytest.raises(SnakeidError, match='no photo that can be read'): check_upload(head(others) + bytes(300))
    with pytest.raises(SnakeidError, match='HEIC'): check_upload(head(b'heic') + b'avif' + bytes(300))


def test_a_species_with_a_semicolon(source, photo):
    from snakeid.explore.identify import identify_photo
    first, *others = source.bundle.species
    odd = replace(source, bundle=replace(source.bundle, species=[f'{first}; albino', *others]))
    names = {p.species for p in identify_photo(odd, photo).possible}
    assert names <= set(odd.bundle.species) and len(names) == len(identify_photo(source, photo).possible)


@pytest.mark.parametrize('host,shown', [('127.0.0.1', '127.0.0.1'), ('0.0.0.0', '127.0.0.1'), ('::1', '[::1]'),
                                        ('::', '[::1]')])
def test_the_address_that_is_shown(host, shown, trained, monkeypatch, capsys):
    from types import SimpleNamespace

    from snakeid.explore import app
    monkeypatch.setattr(app, 'check_port', lambda *args: None)
    monkeypatch.setattr(app, '_wait_until_up', lambda *args: None)
    ended = SimpleNamespace(wait=lambda *args: 0, poll=lambda: 0)
    monkeypatch.setattr(app.subprocess, 'Popen', lambda *args, **kwargs: ended)
    app.run_app(trained.run, host=host, open_browser=False)
    assert f'http://{shown}:8866/' in capsys.readouterr().out


def test_dropzone_of_any_pieces():
    "However a file is cut, and whatever came before, it is handed on once and whole; what does not fit is forgotten"
    from snakeid.core import SnakeidError
    from snakeid.explore.dropzone import Receiver
    rng = random.Random(0)
    files, told, heard = [], [], []
    def check(size):
        if size > 500: raise SnakeidError(f'{size} bytes are too many')
    receiver, sent = Receiver(files.append, told.append, check, heard.append), []
    for k in range(300):
        data, at, cut = rng.randbytes(rng.randrange(600)), 0, rng.randrange(3) == 0
        receiver(dict(name=k, size=len(data)))
        if len(data) > 500:
            assert heard[-1] == dict(name=k, done=True) and told[-1] == f'{len(data)} bytes are too many'
            receiver(dict(name=k, at=0), [data])
            continue
        while at < len(data) and not (cut and at > len(data)//2):
            piece = data[at:at + rng.randrange(1, 200)]
            if rng.random() < .2: receiver(dict(name=k, at=at + 1), [piece])        # a gap
            if rng.random() < .2: receiver(dict(name=k - 1, at=at), [piece])        # an earlier file's
            receiver(dict(name=k, at=at), [memoryview(piece)])
            at += len(piece)
            assert heard[-1] == (dict(name=k, got=at) if at < len(data) else dict(name=k, done=True))
        if at >= len(data): sent.append(data)
    assert files == sent and len(sent) > 100 and len(told) > 20


# ---- where the network looked ----


@pytest.mark.parametrize('arch', [
    'test_vit', 'test_vit2', 'test_convnext', 'test_efficientnet', 'test_resnet', 'densenet121', 'mobilenet_v3_small',
    'squeezenet1_1', 'swin_tiny_patch4_window7_224', 'torchvision/swin_t', 'torchvision/vit_b_32'])
def test_finds_a_map_in(arch, tiny):
    import torch
    from torch import nn

    from snakeid.models.bundle import Bundle
    from snakeid.models.factory import make_body, make_head
    from snakeid.predict.attention import find_attention
    torch.manual_seed(0)
    body, spec = make_body(arch, 'none')
    for p in body.parameters(): p.requires_grad_(False)  # as after training the head alone
    model = nn.Sequential(body, make_head(spec.features, 4))
    bundle = Bundle(model.eval(), list('abcd'), spec, spec.size)
    path = sorted(tiny.images.iterdir())[0]
    maps = np.array([find_attention(bundle, path, s) for s in 'abcd'])
    assert maps.shape == (4, spec.size, spec.size) and maps.min() == 0 and maps.max() == 1
    assert maps.std((1, 2)).max() > .01 and len({m.tobytes() for m in maps}) > 1
    assert not any(m._forward_hooks for m in model.modules()) and all(p.grad is None for p in model.parameters())
    assert np.array_equal(find_attention(bundle, path, 'a'), maps[0])


@pytest.mark.parametrize('tokens', [False, True])
def test_the_map_is_the_right_way_up(tokens, tmp_path):
    "Of channels that come last, and of tokens in rows behind one without a place"
    import torch
    from torch import nn
    from torch.nn import functional as F

    from snakeid.models.bundle import Bundle
    from snakeid.models.factory import BodySpec, make_head
    from snakeid.predict.attention import find_attention
    class Same(nn.LayerNorm):
        def forward(self, x): return x*1
    class Cells(nn.Module):
        "Red and blue of cells of 4 pixels"
        def __init__(self):
            super().__init__()
            self.last = Same(2)
        def forward(self, x):
            cells = F.avg_pool2d(x, 4)[:, [0, 2]].permute(0, 2, 3, 1)
            if not tokens: return self.last(cells).mean((1, 2))
            return self.last(torch.cat([torch.zeros(1, 1, 2), cells.flatten(1, 2)], 1))[:, 1:].mean(1)
    head = make_head(2, 2, 0.)
    with torch.no_grad():
        head[-1].weight[:] = torch.tensor([[1., -1], [-1, 1]])
        head[-1].bias[:] = 0
    spec = BodySpec('own', 'cells', 2, 32, (0,)*3, (1,)*3, False)
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:8, 12:28, 0] = 255                           # red above, right of the middle
    Image.fromarray(pixels).save(tmp_path/'red.png')
    found = find_attention(Bundle(nn.Sequential(Cells(), head).eval(), ['red', 'blue'], spec, 32), tmp_path/'red.png')
    assert np.array_equal(found.reshape(8, 4, 8, 4).mean((1, 3)) > .5, pixels[::4, ::4, 0] > 0)


def test_colours_cover_as_much_as_they_are_told():
    from snakeid.predict.attention import lay_attention
    photo, attention = Image.new('RGB', (40, 20), 'red'), np.eye(2, dtype=np.float32)
    none, half, all_ = (np.asarray(lay_attention(photo, attention, s), int) for s in (0, .5, 1))
    assert np.array_equal(none, np.asarray(photo)) and np.abs(half - (none + all_)/2).max() <= 1
    assert all_[0, [0, -1]].tolist() == [[253, 231, 36], [68, 1, 84]]                       # yellow, violet


# ---- the page of a run ----


@pytest.mark.parametrize('words,part', [
    (('FOLDER',), 'holds no trained model'), (('RUN', '--port', 'BUSY'), 'choose another port'),
    (('RUN', '--port', 0), 'between 1 and 65535'), (('RUN', '--taxa', 'gone.csv'), 'gone.csv'),
    (('RUN', '--host', '203.0.113.1'), 'of 203.0.113.1 cannot be used')])
def test_app_refuses_in_one_sentence(trained, call, tmp_path, elsewhere, look, words, part):
    pytest.importorskip('voila')
    with socket.socket() as busy:
        busy.bind(('127.0.0.1', 0))
        busy.listen()
        real = dict(FOLDER=tmp_path, RUN=trained.run, BUSY=busy.getsockname()[1])
        done = call('app', *(real.get(w, w) for w in words), '--no-browser')
    assert done.status == 2 and part in done.err and len(done.err.splitlines()) == 1, done.err
    assert look(elsewhere) == {}


@pytest.mark.parametrize('module', ['voila', 'ipykernel'])
def test_app_without_the_extra(trained, call, monkeypatch, module):
    pytest.importorskip('voila')
    monkeypatch.setitem(sys.modules, module, None)
    done = call('app', trained.run, '--no-browser')
    assert done.status == 2 and "pip install 'snakeid[voila]'" in done.err and len(done.err.splitlines()) == 1


def test_app_whose_server_does_not_start(trained, call, monkeypatch, elsewhere, look):
    pytest.importorskip('voila')
    import snakeid.explore.app as module
    real = subprocess.Popen
    fails = [sys.executable, '-c', 'raise SystemExit(3)']
    monkeypatch.setattr(module.subprocess, 'Popen', lambda argv, **kwargs: real(fails, **kwargs))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    done = call('app', trained.run, '--no-browser', '--port', port)
    assert done.status == 2 and 'exit status 3' in done.err and look(elsewhere) == {}


def test_app_serves_what_it_was_told(trained, call, taxa, monkeypatch):
    "Folders named from here, the table, the address, and the folders that Jupyter has been told of"
    pytest.importorskip('voila')
    import snakeid.explore.app as module
    real, seen = subprocess.Popen, {}
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    def start(argv, cwd, env):
        seen.update(argv=argv, folder=cwd, paths=env['JUPYTER_PATH'].split(os.pathsep),
                    notebook=(Path(cwd)/'identify.ipynb').read_text(encoding='utf-8'),
                    settings=json.loads((Path(cwd)/'voila.json').read_text(encoding='utf-8')))
        once = f"import socket; socket.create_server(('127.0.0.1', {port})).accept()"
        return real([sys.executable, '-c', once])
    monkeypatch.setattr(module.subprocess, 'Popen', start)
    monkeypatch.setattr(module.webbrowser, 'open', lambda url: pytest.fail(f"a browser was opened at {url}"))
    monkeypatch.setenv('JUPYTER_PATH', 'own')
    monkeypatch.chdir(taxa.parent)
    run = os.path.relpath(trained.run)
    done = call('app', run, '--taxa', taxa.name, '--port', port, '--host', '0.0.0.0', '--no-browser')
    assert done.status == 0 and f'http://127.0.0.1:{port}/ names photos' in done.out, done.err
    assert '--Voila.ip=0.0.0.0' in seen['argv'] and seen['paths'] == [seen['folder'], 'own']
    code = ''.join(json.loads(seen['notebook'])['cells'][1]['source'])
    assert repr(str(taxa.parent/run)) in code and repr(str(taxa)) in code
    shown = seen['settings']['VoilaConfiguration']
    assert shown['strip_sources'] and not shown['show_tracebacks']


@pytest.mark.skipif(os.name == 'nt', reason="there is no kind kill on Windows")
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_app_ends_with_its_server(trained, call, monkeypatch, elsewhere, look, number):
    # Another server stands for Voilà, which the test with a browser runs
    pytest.importorskip('voila')
    import snakeid.explore.app as module
    real, started, opened = subprocess.Popen, [], []
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    def start(argv, **kwargs):
        served = Path(kwargs['cwd'])
        assert {f'--port={port}', '--Voila.ip=127.0.0.1'} <= set(argv)
        assert (served/'identify.ipynb').exists() and served.parent == elsewhere
        other = [sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', str(port)]
        started.append(real(other, stderr=subprocess.DEVNULL, **kwargs))
        return started[0]
    monkeypatch.setattr(module.subprocess, 'Popen', start)
    monkeypatch.setattr(module.webbrowser, 'open', lambda url: (opened.append(url), os.kill(os.getpid(), number)))
    before = signal.getsignal(signal.SIGTERM)
    # A shell lets the programs that it starts in the background ignore Ctrl-C
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    try: done = call('app', trained.run, '--port', port)
    finally: signal.signal(signal.SIGINT, ctrl_c)
    assert done.status == 0 and 'ended' in done.out and opened == [f'http://127.0.0.1:{port}/'], done.err
    assert started[0].poll() is not None and look(elsewhere) == {} and signal.getsignal(signal.SIGTERM) == before
