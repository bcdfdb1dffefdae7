"""Does a confidence keep its promise, and is a stranger noticed? Real photos, test split.

    python benchmarks/calibration.py --runs runs/1 runs/2 runs/3        # finished runs of `snakeid train`
    python benchmarks/calibration.py --labels train_labels.csv --images images --strangers 4

The first calibrates each run's model on its validation photos and judges the promises on its test photos: expected
calibration error before and after (15 bins), how often the 90% sets hold the right species, how many photos of known
species the 95% threshold keeps; `peer` is the model as it came from training. The second trains with some species left
out (drawn by seed, one run a seed) and asks which number tells their photos from test photos of the known ones.
"""
import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import save_table

from snakeid.core import make_rng
from snakeid.data.tables import read_aicrowd
from snakeid.models.bundle import read_bundle
from snakeid.predict.calibrate import calibrate_bundle
from snakeid.predict.batch import predict_photos
from snakeid.report.page import read_run
from snakeid.runs import train_run
from snakeid.scores import score_auroc, score_ece, score_nll, score_sets
from snakeid.train.recipes import find_recipe

KINDS = dict(probability='confidence', energy='energy', vote_share='vote_share')


def read_test(folder):
    "Calibrated bundle and test photos of a run"
    run = read_run(folder)
    bundle = calibrate_bundle(read_bundle(folder), run.manifest)
    return bundle, run.manifest[run.manifest.split == 'test'].reset_index(drop=True)


def judge(folder) -> list[tuple]:
    "Metric, ours, peer, unit of one run, for both settings"
    bundle, test = read_test(folder)
    truth = pd.Index(bundle.species).get_indexer(test.species)
    rows = []
    for views in ('one', 'four'):
        fitted = bundle.calibration[f'{views}/mean']
        before, after = (predict_photos(bundle, test, views=views, probabilities=True, **how)
                         for how in (dict(calibrated=False), dict(sets=True, unknown='probability')))
        p, q = (t.filter(regex='^p:').to_numpy(float) for t in (before, after))
        right = p.argmax(1) == truth
        inside = np.array([[s in c.split('; ') for s in bundle.species] for c in after.candidates])
        sets = score_sets(inside, truth).loc['all']
        accuracy = [(said == test.species).mean() for said in (after.named, before.species)]
        rows += [(views, 'ECE', score_ece(q, right), score_ece(p, right), 'share'),
                 (views, 'NLL', score_nll(q, truth), score_nll(p, truth), 'nats a photo'),
                 (views, 'accuracy', *accuracy, 'share'),
                 (views, 'temperature', fitted['temperature'], 1., ''),
                 (views, '90% sets hold the right species', sets.coverage, np.nan, 'share'),
                 (views, '90% sets, size', sets['size'], np.nan, 'species'),
                 (views, 'known photos kept at 95%', (after.species != 'unknown').mean(), np.nan, 'share')]
    return rows


def find_strangers(args, seed:int) -> list[tuple]:
    "AUROC of each number between known test photos and those of species left out of a training"
    manifest = read_aicrowd(args.labels, args.images)
    out = make_rng(seed, 'strangers').permutation(sorted(manifest.species.dropna().unique()))[:args.strangers]
    stranger = manifest.species.isin(out)
    folder = Path(tempfile.mkdtemp(prefix='strangers-'))/'run'
    train_run(manifest[~stranger], folder, recipe=find_recipe('modern'), seed=seed)
    bundle, test = read_test(folder)
    rows = []
    for views in ('one', 'four'):
        known, odd = (predict_photos(bundle, photos, views=views) for photos in (test, manifest[stranger]))
        for kind, threshold in bundle.calibration[f'{views}/mean']['thresholds'].items():
            of = KINDS[kind]
            rows += [(views, f'AUROC by {kind}', score_auroc(known[of], odd[of]), np.nan, ''),
                     (views, f'strangers stopped by {kind}', (odd[of] < threshold).mean(), np.nan, 'share'),
                     (views, f'known kept by {kind}', (known[of] >= threshold).mean(), np.nan, 'share')]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', nargs='+', default=[], help='folders of finished runs')
    parser.add_argument('--labels')
    parser.add_argument('--images')
    parser.add_argument('--strangers', type=int, default=0, help='species to leave out of a training')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    args = parser.parse_args()
    found = [(f'run {i}', *row) for i, folder in enumerate(args.runs) for row in judge(folder)]
    if args.strangers:
        for seed in args.seeds:
            found += [(f'{args.strangers} strangers, seed {seed}', *row) for row in find_strangers(args, seed)]
    table = pd.DataFrame(found, columns=['run', 'views', 'metric', 'ours', 'peer', 'unit'])
    kind = table.run.str.split(' ').str[0].map(lambda w: 'mean of runs' if w == 'run' else 'strangers')
    by = [kind.rename('run'), 'views', 'metric', 'unit']
    mean = table.groupby(by, sort=False)[['ours', 'peer']].mean().reset_index()
    rows = [(f'{r.run}, {r.views}', r.metric, r.ours, r.peer, r.unit) for r in pd.concat([table, mean]).itertuples()]
    save_table(rows, 'calibration', stays=lambda old: ~old.case.isin([r[0] for r in rows]),
               shows=lambda t: t.case.str.startswith(('mean', 'strangers')))


if __name__ == '__main__': main()
