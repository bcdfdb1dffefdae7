"""From a manifest to DataLoaders, beside fastai in the same run: 130,000 rows, one item, and 1,000,000 rows.

    python benchmarks/manifests.py

Rows name one drawn photo, so that fastai, which opens a photo to learn what its transforms make of it, finds one.
Loaders are built in turn, ours and fastai's, and medians are compared. An item's fetch is timed with the opening of
photos replaced by a photo that is ready, in both libraries. The million rows are split, weighed and turned into
DataLoaders in a process of their own; the memory is its peak above what it held when the manifest stood.
The check of files has a table of its own: `benchmarks/integrity.py`.
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
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from common import save_table
from fastai.vision.all import CategoryBlock, ColReader, ColSplitter, DataBlock, ImageBlock, PILImage, Resize

from snakeid.data import loaders
from snakeid.data.balance import weigh_photos
from snakeid.data.loaders import Photo, make_dataloaders
from snakeid.data.splits import split_stratified
from snakeid.samples.collection import draw_photo


def make_manifest(n, path, species=1500):
    "`n` rows with a long tail of species"
    rng = np.random.default_rng(0)
    names = np.array([f'species {i:04d}' for i in range(species)])
    return pd.DataFrame(dict(photo_id=[f'{i:08d}' for i in range(n)], path=path,
                             species=names[np.minimum(rng.zipf(1.3, n), species)-1]))


class Switched(PILImage):
    "fastai's photo, which stops opening files once one is `ready`"
    ready = None
    @classmethod
    def create(cls, fn, **kwargs): return cls.ready or super().create(fn, **kwargs)


def build_fastai(manifest):
    "fastai's road from a DataFrame, as its documentation shows it"
    frame = manifest[manifest['split'].isin(['train', 'valid'])].assign(is_valid=lambda m: m['split'] == 'valid')
    block = DataBlock(blocks=(ImageBlock(Switched), CategoryBlock), get_x=ColReader('path'), get_y=ColReader('species'),
                      splitter=ColSplitter(), item_tfms=Resize(224))
    return block.weighted_dataloaders(frame, frame.weight.to_numpy(), bs=32, num_workers=0, device='cpu')


def time_items(dataset, n):
    "Microseconds an item"
    start = time.perf_counter()
    for i in range(n): dataset[i]
    return (time.perf_counter()-start)/n*1e6


def build_million(path):
    "In a process of its own: seconds of each step, and megabytes above the manifest"
    def held(): return int(Path('/proc/self/statm').read_text().split()[1])*resource.getpagesize()/1e6
    manifest = make_manifest(1_000_000, [f'{path}/{i:08d}.jpg' for i in range(1_000_000)])
    gc.collect()
    before, seconds = held(), {}
    for name, step in (('split', split_stratified), ('weigh', weigh_photos), ('DataLoaders', make_dataloaders)):
        start = time.perf_counter()
        manifest = step(manifest)
        seconds[name] = time.perf_counter()-start
    return dict(seconds=seconds, megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3 - before)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=int, default=3, help='times each road is taken at 130,000 rows')
    parser.add_argument('--million', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    if args.million: return print(json.dumps(build_million('photos')))
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/snake.jpg'
        draw_photo('Pictophis guttatus', 1, 224).save(path)
        manifest = weigh_photos(split_stratified(make_manifest(130_000, path)))
        times = dict(ours=[], fastai=[])
        for _ in range(args.runs):
            for name, build in (('ours', make_dataloaders), ('fastai', build_fastai)):
                start = time.perf_counter()
                made = build(manifest)
                times[name].append(time.perf_counter()-start)
                if name == 'ours': ours = made
                else: theirs = made
        ready, Switched.ready = Photo.create(path), Switched.create(path)
        loaders.Photo.create = classmethod(lambda cls, fn, **kwargs: ready)
        items = dict(ours=[], fastai=[])
        for _ in range(5):
            items['ours'].append(time_items(ours.train_ds, 20_000))
            items['fastai'].append(time_items(theirs.train_ds, 2_000))
        rows = [('130,000 rows', metric, statistics.median(v['ours']), statistics.median(v['fastai']), unit)
                for metric, v, unit in (('DataLoaders', times, 'seconds'),
                                        ('an item without its decode', items, 'microseconds'))]
    told = subprocess.run([sys.executable, __file__, '--million'], capture_output=True, text=True, check=True)
    million = json.loads(told.stdout.splitlines()[-1])
    rows += [('1,000,000 rows', step, s, np.nan, 'seconds') for step, s in million['seconds'].items()]
    rows += [('1,000,000 rows', 'all', sum(million['seconds'].values()), np.nan, 'seconds'),
             ('1,000,000 rows', 'memory above the manifest', million['megabytes'], np.nan, 'megabytes')]
    save_table(rows, 'manifests')


if __name__ == '__main__': main()
