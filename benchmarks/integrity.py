"""Broken files: what `inspect_photo` finds, and how fast, beside fastai's `verify_image` and `verify_images`.

    python benchmarks/integrity.py
    python benchmarks/integrity.py --images FOLDER [FOLDER ...]

Every kind of damage of `snakeid.samples.damage` is made of several drawn photos. `ours` and `peer` are the share of
these files that is flagged: 1 is right for damaged files, 0 for odd and sound ones. "shown right" is the share of odd
files of which `open_photo` and fastai's `PILImage.create` make the photo that went in. Speeds are medians of
alternating runs over the same folders: ours in as many threads as there are cores, `verify_images` as it comes. That
one decodes to 32 pixels and computes no digest; "same scale, no digest" is ours asked for just that. "work" is the
time of processors, which other programs on the machine disturb less. `ratio` is ours/peer.
"""
import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from common import save_table
from fastai.vision.core import PILImage
from fastai.vision.utils import verify_image, verify_images
from fastcore.foundation import L

from snakeid.data.damage import inspect_photo
from snakeid.data.manifest import find_photos
from snakeid.data.photo import DECODER_ERRORS, open_photo
from snakeid.samples.collection import draw_photo
from snakeid.samples.damage import DAMAGES, write_damages
from snakeid.samples.files import encode_photo
from snakeid.samples.species import SPECIES

KINDS = {d.name: d for d in DAMAGES}


def shows(read, path, meant):
    "Does `read` make the photo that went in? Compression changes a grey level or four"
    try: seen = read(path)
    except DECODER_ERRORS: return False
    return seen.size == meant.size and np.abs(np.asarray(seen, int) - np.asarray(meant, int)).mean() < 8


def check_corpus(folder, photos):
    "One row a file of the corpus: what was made, and what both sides say"
    tables = []
    for seed in range(photos):
        photo = draw_photo(SPECIES[seed % len(SPECIES)], 100 + seed, 224).crop((0, 0, 224, 192))
        table = write_damages(folder/str(seed), photo, seed=seed)
        found = [inspect_photo(p) for p in table.path]
        table['ours'], table['noted'] = [bool(o.reason) for o in found], [bool(o.notes) for o in found]
        table['peer'] = [not verify_image(p) for p in table.path]
        meant = [KINDS[k].shows(photo) if KINDS[k].shows else photo for k in table.kind]
        table['ours_right'] = [shows(open_photo, p, m) for p, m in zip(table.path, meant)]
        table['peer_right'] = [shows(PILImage.create, p, m) for p, m in zip(table.path, meant)]
        tables.append(table)
    return pd.concat(tables)


def summarize_corpus(table):
    "Rows of the result: groups of kinds first, then each kind"
    groups = {'damage that shows in the bytes': table[(table.expect == 'damaged') & table.visible],
              'damage that need not show': table[~table.visible], 'odd but whole': table[table.expect == 'odd'],
              'sound': table[table.expect == 'sound']}
    for name, part in groups.items():
        case = f'corpus, {name}, {part.kind.nunique()} kinds'
        unit = f'share of {len(part)} files'
        yield dict(case=case, metric='flagged', ours=part.ours.mean(), peer=part.peer.mean(), unit=unit)
        if name.startswith('damage that shows'):
            whole = part.groupby('kind')[['ours', 'peer']].all().mean()
            yield dict(case=case, metric='kinds always flagged', ours=whole.ours, peer=whole.peer,
                       unit=f'share of {part.kind.nunique()} kinds')
        elif 'damage' not in name:
            yield dict(case=case, metric='noted', ours=part.noted.mean(), unit=unit)
            yield dict(case=case, metric='shown right', ours=part.ours_right.mean(), peer=part.peer_right.mean(),
                       unit=unit)
    for kind, part in table.groupby('kind', sort=False):
        yield dict(case=f'{KINDS[kind].expect}: {kind}', metric='flagged', ours=part.ours.mean(), peer=part.peer.mean(),
                   unit=f'share of {len(part)} files')


def time_both(name, paths, runs):
    "Rows of the result: photos a second, and what is flagged"
    # Each thread gets ten turns, since handing out a photo costs as much as opening it
    n = max(1, len(paths)//(10*os.cpu_count()))
    def inspect(**options):
        "Ours, in threads"
        def look(some): return sum(bool(inspect_photo(p, **options).reason) for p in some)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sum(pool.map(look, [paths[i:i+n] for i in range(0, len(paths), n)]))
    checks = {'ours': inspect, 'bare': lambda: inspect(least=32, digest=False),
              'peer': lambda: len(verify_images(L(paths)))}
    flagged, seconds, work = {}, {side: [] for side in checks}, {side: [] for side in checks}
    for i in range(runs + 1):
        for side, check in checks.items():
            start, before = time.perf_counter(), os.times()
            flagged[side] = check()
            if i == 0: continue                                          # the first run warms up
            seconds[side].append(time.perf_counter() - start)
            work[side].append(sum(os.times()[:4]) - sum(before[:4]))     # of this process and its children
    speed = {side: len(paths)/statistics.median(s) for side, s in seconds.items()}
    work = {side: statistics.median(s)/len(paths)*1000 for side, s in work.items()}
    case = f'{name}, {len(paths)} photos'
    yield dict(case=case, metric='speed', unit='photos/s', ours=speed['ours'], peer=speed['peer'])
    yield dict(case=case, metric='speed, same scale, no digest', unit='photos/s', ours=speed['bare'],
               peer=speed['peer'])
    yield dict(case=case, metric='work', unit='ms of a core a photo', ours=work['ours'], peer=work['peer'])
    yield dict(case=case, metric='flagged', unit='photos', ours=flagged['ours'], peer=flagged['peer'])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', nargs='*', default=[], help='folders of photos to run on besides the drawn ones')
    parser.add_argument('--photos', type=int, default=20, help='drawn photos to spoil in every way')
    parser.add_argument('--runs', type=int, default=9, help='timed runs of each side')
    args = parser.parse_args()
    warnings.filterwarnings('ignore', 'Corrupt EXIF')
    with tempfile.TemporaryDirectory(prefix='integrity-') as work:
        rows = list(summarize_corpus(check_corpus(Path(work)/'corpus', args.photos)))
        for size, n in ((224, 1000), (800, 300), (1600, 150)):
            folder = Path(work)/str(size)
            folder.mkdir()
            drawn = [encode_photo(draw_photo(SPECIES[i], i, size), quality=90) for i in range(10)]
            paths = [folder/f'{i}.jpg' for i in range(n)]
            for i, path in enumerate(paths): path.write_bytes(drawn[i % len(drawn)])
            rows += time_both(f'drawn, {size} px', paths, args.runs)
        for images in map(Path, args.images):
            name = images.parent.name if images.name == 'images' else images.name
            rows += time_both(name, find_photos(images), args.runs)
    kinds = ('damaged:', 'odd:', 'sound:')
    save_table(rows, 'integrity', machine=f'{os.cpu_count()} cores, Python {platform.python_version()}',
               stays=lambda old: ~old.case.str.startswith(('corpus', *kinds)),
               shows=lambda table: ~table.case.str.startswith(kinds))


if __name__ == '__main__': main()
