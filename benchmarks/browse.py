"""How long a large collection takes to open and to filter in `browse` and `review`, and what it holds in memory.

    python benchmarks/browse.py

Each size runs in a process of its own, with 48 drawn photos of 640 pixels that the rows share. Opening is the call of
`browse` with all that it loads, the pictures of the first page included; memory is the peak above what the process held
when the manifest stood. A filter is timed without pictures: the rows that pass and the counts of every column, beside
pandas comparing the texts; medians of all species of the first page. A decision is one of `Decisions` with 10,000 in
the file. The bar for 100,000 photos is 2 seconds and 300 megabytes; seconds of the processor tell how much of the wait
was other programs' doing.
"""
import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from common import save_table

from snakeid.explore.browse import browse
from snakeid.explore.decisions import Decisions
from snakeid.explore.review import review
from snakeid.samples.collection import draw_photo

PAGE = 48
SIZES = (100_000, 1_000_000)


def make_manifest(n, folder):
    "`n` rows with a long tail of 1,500 species; 30% are flagged, each with words of its own"
    rng = np.random.default_rng(0)
    names = np.array([f'species {i:04d}' for i in range(1500)])
    flagged = rng.random(n) < .3
    flag = [f'near-duplicate: copy of {i}; blurred: sharpness 3.0' if f else '' for i, f in enumerate(flagged)]
    return pd.DataFrame(dict(photo_id=[f'{i:08d}' for i in range(n)], path=[f'{folder}/{i%PAGE}.jpg' for i in range(n)],
                             species=names[np.minimum(rng.zipf(1.3, n), 1500)-1], flag=flag,
                             split=rng.choice(['train', 'valid', 'test'], n),
                             country=rng.choice(['PH', 'TH', 'MY'], n)))


def clock(work):
    "Seconds that something takes"
    start = time.perf_counter()
    work()
    return time.perf_counter()-start


def filter_by_text(manifest, species):
    "What `Collection` does, as pandas does it: rows of a species, and counts for every menu"
    rows = manifest[manifest.species == species]
    kinds = rows.flag.str.split('; ').explode().str.split(':').str[0].value_counts()
    return rows, kinds, manifest.species.value_counts(), rows['split'].value_counts(), rows.country.value_counts()


def filter_by_code(collection, species):
    "The same by a `Collection`"
    collection.choose('species', species)
    return [collection.counts(c) for c in collection.facets]


def measure(n, folder):
    "In a process of its own: seconds, and megabytes above the manifest"
    def held(): return int(Path('/proc/self/statm').read_text().split()[1])*resource.getpagesize()/1e6
    manifest, found = make_manifest(n, folder), {}
    gc.collect()
    before = held()
    start, worked = time.perf_counter(), time.process_time()
    sheet = browse(manifest)
    found['browse: open'] = time.perf_counter()-start, None, 'seconds'
    found['browse: open, processor'] = time.process_time()-worked, None, 'seconds'
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3
    found['browse: memory above the manifest'] = peak - before, None, 'megabytes'
    found['browse: a page of new pictures'] = clock(lambda: (sheet.thumbs.kept.clear(), sheet.turn(2))), None, 'seconds'
    again = [clock(lambda: sheet.turn(2)) for _ in range(5)]
    found['browse: a page seen before'] = statistics.median(again), None, 'seconds'
    species = sheet.collection.page(1).species.unique()
    ours, peer = [], []
    for name in species:
        ours.append(clock(lambda: filter_by_code(sheet.collection, name)))  # noqa: B023
        peer.append(clock(lambda: filter_by_text(manifest, name)))          # noqa: B023
        assert len(sheet.collection.rows) == (manifest.species == name).sum()
    found['browse: a filter and its counts'] = statistics.median(ours), statistics.median(peer), 'seconds'
    file = Path(folder)/f'decisions-{n}.csv'
    rows = manifest[['photo_id', 'path', 'species', 'flag']][manifest.flag != ''].head(10_000)
    rows.assign(decision='keep').to_csv(file, index=False)
    start = time.perf_counter()
    desk = review(manifest, file)
    found['review: open'] = time.perf_counter()-start, None, 'seconds'
    decisions, ids = Decisions(file, manifest), desk.collection.manifest.photo_id.iloc[-5:]
    ours = [clock(lambda: decisions.keep(i)) for i in ids]                 # noqa: B023
    found['review: a decision beside 10,000'] = statistics.median(ours), None, 'seconds'
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--measure', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure: return print(json.dumps(measure(int(args.measure[0]), args.measure[1])))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(PAGE): draw_photo(None, i, 640).save(f'{folder}/{i}.jpg')
        for n in SIZES:
            told = subprocess.run([sys.executable, __file__, '--measure', str(n), folder], stdout=subprocess.PIPE,
                                  text=True, check=True)
            found = json.loads(told.stdout.splitlines()[-1])
            rows += [(f'{n:,} rows', name, *values) for name, values in found.items()]
    save_table(rows, 'browse')


if __name__ == '__main__': main()
