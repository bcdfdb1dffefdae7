"What takes long tells how far it is, also where a function is one call for its user"
import re

import numpy as np
import pandas as pd
import pytest

from snakeid import core


@pytest.fixture
def told(monkeypatch):
    "The titles of all that was told, with nothing too short to be told; and that each came to its end"
    seen, last = {}, {}
    def call(self, done, total):
        assert 0 <= done <= total
        assert done >= last.get(self, 0)                   # never backwards
        last[self] = done
        seen.setdefault(self.title, []).append((done, total))
    monkeypatch.setattr(core.Progress, '__call__', call)
    return seen


def ended(counts): return counts[-1][0] == counts[-1][1] > 0


def test_reading_a_large_label_file(told, tmp_path, monkeypatch):
    import json

    from snakeid.data import records
    monkeypatch.setattr(records, 'BATCH', 1000)
    images = [dict(id=str(i), file_name=f'{i}.jpg', location='a'*400) for i in range(10_000)]
    (tmp_path/'labels.json').write_text(json.dumps(dict(images=images)))
    assert len(records.read_records(tmp_path/'labels.json', ('images',))['images']['id']) == 10_000
    counts = told['MB of labels read']
    assert len(counts) >= 9 and counts[-1][0] >= 3 and counts[-1][1] == 4


def test_class_folders(told, tiny, tmp_path):
    from snakeid.data.tables import read_aicrowd, write_folders
    photos = read_aicrowd(tiny.labels, tiny.images)
    done = write_folders(photos, tmp_path/'out', by='species')
    assert (done.done == 'linked').sum() + (done.done == 'copied').sum() == len(told['photos put into folders'])
    assert ended(told['photos put into folders'])


def test_training_before_its_first_epoch(told, tiny, train, tmp_path):
    done = train(tmp_path/'run', tiny.images, tiny.labels, '--frozen-epochs', 0)
    assert done.status == 0, done.err
    for title in ('views put through the frozen network', 'first heads tried', 'parts of the report'):
        assert ended(told[title]), title


def test_judging_labels(told):
    from snakeid.predict.suspects import predict_folds
    rng = np.random.default_rng(0)
    predict_folds(rng.normal(size=(60, 4)), pd.Series(list('abc')*20), folds=4)
    assert told['parts judged by the others'] == [(k, 4) for k in range(1, 5)]


def test_eight_bits(told, trained, tmp_path):
    for name in ('onnx', 'onnxruntime'): pytest.importorskip(name, reason=f"{name} comes with the onnx extra")
    from snakeid.models.bundle import read_bundle
    from snakeid.models.portable import quantize_onnx
    bundle = read_bundle(trained.run)
    pixels = np.random.default_rng(0).integers(0, 255, (20, bundle.size, bundle.size, 3)).astype(np.uint8)
    quantize_onnx(bundle, pixels, tmp_path/'a.onnx')
    assert ended(told['photos measured for eight bits']) and told['photos measured for eight bits'][0] == (0, 20)


def test_every_line_can_be_switched_off(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv('SNAKEID_PROGRESS', 'off')
    progress = core.Progress('photos read', after=0)
    for i in range(5): progress(i, 4)
    assert capsys.readouterr() == ('', '')
    monkeypatch.delenv('SNAKEID_PROGRESS')
    progress = core.Progress('photos read', after=0)
    for i in range(5): progress(i, 4)
    assert re.search('photos read: 4 of 4', capsys.readouterr().err)
