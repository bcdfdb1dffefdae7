"""What numbers of 16 and of 8 bits cost a trained network: accuracy and confidence on its own test photos.

    python benchmarks/precision.py --runs runs/1 runs/2          # finished runs of `snakeid train`

The figures in `results` are of ResNet-18 and EfficientNet-B0 trained from scratch on drawn snakes:
`draw_collection(folder, n=1100, size=160, species=10, tail=6, seed=3)`, then `snakeid train --arch resnet18 (or
efficientnet_b0) --weights none --recipe snake2019_resnet18 --lr 0.001 --epochs 12 --size 128 --train-size 112 --bs 32`.

Each run's model names the test photos of its split, four views by majority, by PyTorch in full precision, in bf16
(where the processor has it) and in eight bits, calibrated on 128 of the run's training photos. `peer` is PyTorch.
"""
import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import save_table

from snakeid.core import SnakeidError
from snakeid.models.bundle import read_bundle
from snakeid.predict.backends import make_backend, quantize_bundle
from snakeid.predict.batch import predict_photos
from snakeid.report.page import read_run
from snakeid.scores import score_ece


def judge(folder:Path) -> list[tuple]:
    "Rows of one run"
    manifest, bundle = read_run(folder).manifest, read_bundle(folder)
    test = manifest[(manifest.split == 'test') & (manifest.flag == '')].reset_index(drop=True)
    train = manifest[(manifest.split == 'train') & (manifest.flag == '')]
    with tempfile.TemporaryDirectory() as tmp:
        shutil.copytree(folder/'bundle', Path(tmp)/'bundle')
        quantize_bundle(tmp, train.path.tolist())
        tables = {}
        for name in ('torch', 'bf16', 'int8'):
            try: backend = make_backend(bundle, name, folder=tmp, device='cpu')
            except SnakeidError as e:
                if 'no instructions' not in str(e): raise
                print(e)
            else: tables[name] = predict_photos(bundle, test, backend=backend)
    rows, peer = [], tables['torch']
    for name, table in tables.items():
        case = f'{bundle.spec.arch}, {len(bundle.species)} species, {len(test)} photos, {name}'
        right, exact = ((t.species == test.species).to_numpy() for t in (table, peer))
        ece, peers = (score_ece(t.confidence.to_numpy(), r) for t, r in ((table, right), (peer, exact)))
        change = (table.confidence - peer.confidence).abs().max()
        rows += [(case, 'accuracy', right.mean(), exact.mean(), 'share'), (case, 'ECE', ece, peers, 'share'),
                 (case, 'named as in full precision', (table.species == peer.species).mean(), np.nan, 'share'),
                 (case, 'largest change of a confidence', change, np.nan, 'share')]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', nargs='+', type=Path, required=True)
    rows = [row for folder in parser.parse_args().runs for row in judge(folder)]
    save_table(rows, 'precision', machine=f'torch {torch.__version__}')


if __name__ == '__main__': main()
