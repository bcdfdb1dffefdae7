"""Camera traps end to end: a large label file, two stages against one on cameras that training never saw, and what a
random split would have claimed.

    python benchmarks/camera_traps.py json --categories iwildcam2020_categories.csv
    python benchmarks/camera_traps.py drawn --seeds 0                  # about an hour a seed on two quiet cores

`json` makes a COCO Camera Traps file of 217,959 photos at 441 locations with the real categories of WILDS-iWildCam
2020 and times reading it, a cut of 15,000 photos, a split by location and DataLoaders from all of it, in a process of
its own whose largest resident size the kernel tells. `peer` is the limit: 20 s and 2 GB.

`drawn` draws a season of camera traps (`snakeid.samples.traps`), trains on some cameras and tests on others. Three
first stages tell empty from animal: the small network of the blog on the photos, as there; the same network, by the
recipe `modern_cnn`, on pictures of what is different from what a camera usually shows (`write_changes`), on 56 × 56
pixels; and a fine-tuned network on those. Behind each stands one network for the species of animals, on the windows
that have changed (`crop_changes`). The rival is one network for everything with `empty` as a species, on whole photos
and on windows, and on whole photos again with a random split of as many photos. Thresholds are chosen on validation
photos for 99% of the animals. `peer` of the first stages is 0.91, the blog's figure for its small network; of the
cascades the one-stage network on whole photos; of the random split the split by camera.
"""
import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

PHOTOS, LOCATIONS = 217_959, 441 # Of the blog's project
PIXELS, SIZE = 224, 112 # Side of the drawn photos, and of what the networks see of them
RECALL = .99 # Share of animals that the gate lets pass


# ---- a large label file

def make_labels(file:Path, categories:list[tuple[int,str]]) -> None:
    "A COCO Camera Traps file as large as iWildCam 2020's: bursts, a long tail, a third empty, sometimes two species"
    from snakeid.core import make_rng
    rng = make_rng(0, 'labels')
    share = 1/np.arange(1, len(categories))**1.2
    species = np.r_[[0], rng.permutation(np.arange(1, len(categories)))]
    images, annotations, i = [], [], 0
    start = pd.Timestamp('2013-01-01').value//10**9
    while i < PHOTOS:
        place, burst = int(rng.integers(LOCATIONS)), int(min(rng.integers(1, 11), PHOTOS - i))
        # each camera has animals of its own
        rank = rng.choice(len(share), p=share/share.sum()) + 7*place
        kind = 0 if rng.random() < 1/3 else int(species[1 + rank % len(share)])
        second = int(species[1 + rng.integers(len(share))]) if kind and rng.random() < .01 else None
        when = start + int(rng.integers(3*365*86400))
        for frame in range(burst):
            name = f'{i:08x}-21bc-11ea-a13a-137349068a90'
            images.append(dict(id=name, file_name=f'{name}.jpg', width=1920, height=1080, location=place,
                               seq_id=f'seq-{i-frame}', seq_num_frames=burst, frame_num=frame+1,
                               datetime=time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(when + frame))))
            for k in (kind, second):
                if k is None: continue
                annotations.append(dict(id=f'a{len(annotations)}', image_id=name, category_id=categories[k][0]))
            i += 1
    file.write_text(json.dumps(dict(info=dict(version='1'), images=images, annotations=annotations,
                                    categories=[dict(id=c, name=n) for c, n in categories])))


def time_labels(file:str) -> None:
    "Read, cut, split, load; print seconds and memory"
    marks = [('start', time.perf_counter())]
    def mark(name): marks.append((name, time.perf_counter()))
    from snakeid.data.balance import weigh_photos
    from snakeid.data.coco import read_coco
    from snakeid.data.cut import cut_photos
    from snakeid.data.loaders import make_dataloaders
    from snakeid.data.splits import split_grouped
    mark('imports')
    manifest = read_coco(file, None)
    mark('read')
    cut = cut_photos(manifest, 15_000, whole='sequence')
    mark('cut to 15,000')
    manifest = split_grouped(manifest, 'location', valid_share=.1, test_share=.2)
    mark('split by location')
    weighed = weigh_photos(manifest, .5)
    dls = make_dataloaders(weighed, size=224, bs=64, unseen='leave out', device='cpu')
    mark('weights and DataLoaders')
    assert len(manifest) == PHOTOS and (cut.flag == '').sum() <= 15_000
    assert cut[cut.flag == ''].location.nunique() == manifest.location.nunique()
    sides = manifest.groupby('location')['split'].nunique()
    assert sides.max() == 1, 'a location on two sides'
    seconds = {b[0]: b[1] - a[1] for a, b in zip(marks, marks[1:])}
    print(json.dumps(dict(seconds=seconds, memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6,
                          photos=len(dls.train_ds), species=len(dls.vocab), kept=int((cut.flag == '').sum()))))


def bench_labels(categories:str) -> list[tuple]:
    "Rows of `json`"
    table = pd.read_csv(categories)
    with tempfile.TemporaryDirectory() as tmp:
        file = Path(tmp)/'labels.json'
        make_labels(file, list(zip(table.category_id, table.name)))
        print(f'{file.stat().st_size/1e6:.0f} MB', flush=True)
        command = [sys.executable, __file__, 'json', '--time', str(file)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    case = f'{PHOTOS} photos, {LOCATIONS} locations, COCO Camera Traps'
    rows = [(case, what, seconds, None, 's') for what, seconds in found['seconds'].items()]
    work = sum(s for what, s in found['seconds'].items() if what != 'imports')
    return [*rows, (case, 'all but imports', work, 20., 's'),
            (case, 'with imports', work + found['seconds']['imports'], 20., 's'),
            (case, 'largest size of the process', found['memory'], 2., 'GB')]


# ---- drawn camera traps

def train(manifest:pd.DataFrame, recipe, arch:str, weights:str|None=None, seed:int=0):
    "A bundle by a recipe"
    from snakeid.data.balance import weigh_photos
    from snakeid.data.loaders import make_dataloaders
    from snakeid.train.callbacks import PrintProgress
    from snakeid.train.fit import fit_species
    from snakeid.train.learner import make_bundle, make_learner
    manifest = weigh_photos(manifest, **recipe.weighing)
    dls = make_dataloaders(manifest, **recipe.loading, seed=seed, unseen='leave out', device='cpu')
    learn = make_learner(dls, arch, weights, recipe, seed=seed)
    with learn.no_bar(), learn.no_logging(): fit_species(learn, recipe, seed=seed, cbs=[PrintProgress(arch)])
    return make_bundle(learn, recipe.size)


def part(manifest:pd.DataFrame, side:str) -> pd.DataFrame:
    "The photos of a split"
    return manifest[manifest['split'] == side].reset_index(drop=True)


def bench_drawn(folder:Path, seed:int, photos:int, cameras:int, epochs:int) -> list[tuple]:
    "Rows of one season"
    from snakeid.core import make_rng
    from snakeid.data.background import write_changes
    from snakeid.data.splits import split_grouped
    from snakeid.data.windows import crop_changes
    from snakeid.models.factory import DEFAULT_ARCH
    from snakeid.predict.batch import predict_photos
    from snakeid.predict.cascade import Cascade, compare_stages, fit_gate, name_stages, predict_cascade, score_animals
    from snakeid.predict.places import compare_places, score_places
    from snakeid.samples.traps import draw_traps
    from snakeid.scores import score_auroc
    from snakeid.train.recipes import RECIPES
    season = draw_traps(folder/str(seed), n=photos, seed=seed, size=PIXELS, cameras=cameras).assign(flag='')
    test = season[season['split'] == 'test']
    rest = split_grouped(season[season['split'] != 'test'], 'location', valid_share=.15, test_share=0, seed=seed)
    manifest = pd.concat([rest, test], ignore_index=True)
    test = part(manifest, 'test')
    print({s: (len(g), g.location.nunique()) for s, g in manifest.groupby('split')}, flush=True)
    began = time.perf_counter()
    changed = write_changes(manifest, folder/f'{seed}-changes', size=SIZE)
    windows = crop_changes(changed)
    took = (time.perf_counter() - began)/len(changed)
    print(f'pictures of change and windows: {1000*took:.1f} ms a photo', flush=True)
    modern = replace(RECIPES['modern'], size=SIZE, train_size=SIZE, epochs=epochs)
    # A crop must not lose the animal, and change is no matter of light
    tuned = replace(modern, epochs=2*epochs, min_scale=.8, light=0.)
    which = train(name_stages(windows)[1], modern, DEFAULT_ARCH, seed=seed)
    animal, rows, tables = (test.species != 'empty').to_numpy(), [], {}
    for name, source in (('whole photos', manifest), ('windows', windows)):
        one = train(source, modern, DEFAULT_ARCH, seed=seed)
        tables[f'one stage, {name}'] = predict_photos(one, part(source, 'test'))
        if source is manifest: rival, whole = f'one stage, {name}', one
    for name, source, recipe, arch, weights in (
            ('small CNN on photos, 56 px', manifest, RECIPES['wildcam2021_cnn'], 'small_cnn', 'none'),
            ('small CNN on change, 56 px', changed, RECIPES['modern_cnn'], 'small_cnn', 'none'),
            (f'fine-tuned on change, {SIZE} px', changed, tuned, DEFAULT_ARCH, None)):
        network = train(name_stages(source)[0], recipe, arch, weights, seed)
        scores = {side: score_animals(network, part(source, side)) for side in ('valid', 'test')}
        gate = fit_gate(scores['valid'], part(source, 'valid').species, RECALL)
        sure = scores['test']
        found = dict(accuracy=((sure >= .5) == animal).mean(), AUROC=score_auroc(sure[animal], sure[~animal]))
        print(name, found, gate, flush=True)
        rows += [(f'empty or animal, {name}', what, value, .91 if what == 'accuracy' else None, 'share')
                 for what, value in found.items()]
        for threshold, label in ((gate.threshold, f'{RECALL:.0%} of the animals'), (.5, 'threshold 0.5')):
            stages = Cascade(network, which, replace(gate, threshold=threshold))
            tables[f'{name}, {label}'] = predict_cascade(stages, part(windows, 'test'), scores=sure)
        print(compare_stages(tables, test.species).round(3).to_string(), flush=True)
    rows.append(('empty or animal, always animal', 'accuracy', animal.mean(), None, 'share'))
    found = compare_stages(tables, test.species)
    rows += [(name, what, value, found.loc[rival, what], 'share') for name, row in found.iterrows()
             for what, value in row.items()]
    # The same photos and the same number of each side, drawn without regard to cameras
    mixed = manifest[manifest.species.isin(whole.species)].reset_index(drop=True)
    mixed['split'] = make_rng(seed, 'random split').permutation(mixed['split'].to_numpy(object))
    held = mixed[mixed['split'] == 'test'].reset_index(drop=True)
    flattered = train(mixed, modern, DEFAULT_ARCH, seed=seed)
    sides = [score_places(predict_photos(network, photos), known, trained=whole.species)
             for network, photos, known in ((flattered, held, mixed), (whole, test, manifest))]
    both = compare_places(*sides)
    print(found.round(3).to_string(), both.round(3).to_string(), sep='\n', flush=True)
    return rows + [('random split, one stage', what, both.loc[what, 'random'], both.loc[what, 'new'], 'share')
                   for what in ('accuracy', 'macro-F1')]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=('json', 'drawn'))
    parser.add_argument('--categories', help='CSV with category_id and name')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--photos', type=int, default=16000, help='photos to draw')
    parser.add_argument('--cameras', type=int, default=160, help='cameras of the season')
    parser.add_argument('--epochs', type=int, default=3, help='epochs of the networks that are fine-tuned')
    parser.add_argument('--time', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.time: return time_labels(args.time)
    from common import save_table
    if args.part == 'json': rows = bench_labels(args.categories)
    else:
        with tempfile.TemporaryDirectory() as tmp:
            rows = [(seed, *row) for seed in args.seeds
                    for row in bench_drawn(Path(tmp), seed, args.photos, args.cameras, args.epochs)]
        found = pd.DataFrame(rows, columns=['seed', 'case', 'metric', 'ours', 'peer', 'unit'])
        found = found.groupby(['case', 'metric', 'unit'], sort=False, dropna=False)[['ours', 'peer']].mean()
        seeds = ', '.join(map(str, args.seeds))
        rows = [(f'drawn, seeds {seeds}: {r.case}', r.metric, r.ours, r.peer, r.unit)
                for r in found.reset_index().itertuples()]
    drawn = args.part == 'drawn'
    save_table(rows, 'camera_traps', stays=lambda old: old.case.str.startswith('drawn') != drawn)


if __name__ == '__main__': main()
