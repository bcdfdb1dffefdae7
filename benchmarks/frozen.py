"""Five frozen epochs three ways: as fastai freezes a body, without training batch norm, and on features computed once.

    python benchmarks/frozen.py --labels longtail.csv --images images

All ways start from the same random head, draw by the same seeds, and are judged on the test photos (nothing is chosen
here). `peer` is fastai's default freeze, which trains batch norm and so runs backward through the body.
"""
import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
from common import save_table
from sklearn.metrics import f1_score

from snakeid.data.balance import weigh_photos
from snakeid.data.loaders import make_dataloaders
from snakeid.train.callbacks import KeepStatistics
from snakeid.train.fit import fit_species
from snakeid.train.learner import make_learner
from snakeid.train.recipes import RECIPES

BASE = replace(RECIPES['modern'], warm_head=False, frozen_epochs=5, epochs=0, lr=5e-3, keep='last')
WAYS = {
    'as fastai freezes': replace(BASE, keep_statistics=False),
    'without training batch norm': BASE,
    'features of 1 view': replace(BASE, cached_views=1),
    'features of 4 views': replace(BASE, cached_views=4),
}


def run(manifest:pd.DataFrame, way:str, seed:int) -> tuple[float, float]:
    "Seconds and macro-F1 on the test photos"
    recipe = WAYS[way]
    dls = make_dataloaders(weigh_photos(manifest, **recipe.weighing), **recipe.loading, seed=seed, need_valid=False)
    learn = make_learner(dls, recipe=recipe, seed=seed)
    if way == 'as fastai freezes':
        learn.train_bn = True
        learn.remove_cbs(KeepStatistics)
        learn.create_opt()
    start = time.perf_counter()
    with learn.no_bar(), learn.no_logging(): fit_species(learn, recipe, seed=seed)
    seconds, test = time.perf_counter()-start, manifest[manifest.split == 'test']
    with learn.no_bar(): said = learn.get_preds(dl=dls.test_dl(test.path.tolist()))[0].argmax(1)
    return seconds, f1_score(test.species, [dls.vocab[i] for i in said], average='macro', zero_division=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--labels', required=True)
    parser.add_argument('--images', required=True)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()
    table = pd.read_csv(args.labels)
    paths = [str(Path(args.images)/f) for f in table.filename]
    manifest = pd.DataFrame(dict(path=paths, species=table.scientific_name, split=table.split))
    found = {way: [] for way in WAYS}
    for seed in args.seeds:
        for way, runs in found.items():
            runs.append(run(manifest, way, seed))
            print(seed, way, *(round(v, 3) for v in runs[-1]), flush=True)
    rows, peer = [], [r[0] for r in found['as fastai freezes']]
    scores = [r[1] for r in found['as fastai freezes']]
    for way, runs in found.items():
        spread = statistics.stdev([r[1] for r in runs]) if len(runs) > 1 else 0.
        rows += [(way, 'time of five epochs', statistics.median(r[0] for r in runs), statistics.median(peer), 's'),
                 (way, 'macro_f1', statistics.mean(r[1] for r in runs), statistics.mean(scores), 'share'),
                 (way, 'macro_f1, spread', spread, None, 'share')]
    save_table(rows, 'frozen')


if __name__ == '__main__': main()
