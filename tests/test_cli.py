"What the commands print, read and write"
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {'torch', 'torchvision', 'fastai', 'fastcore', 'timm', 'pandas', 'numpy', 'PIL', 'sklearn', 'matplotlib',
         'jinja2', 'safetensors'}

# ---- Help ----

# Runs each command line and prints, as JSON, its exit status, its text and all modules that were imported by then
HELP = '''
import contextlib, io, json, sys
from snakeid.cli import main
for argv in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try: status = main(argv)
        except SystemExit as e: status = e.code
    print(json.dumps([status, out.getvalue(), sorted({m.split('.')[0] for m in sys.modules})]))
'''


def run_apart(*argvs):
    "Run command lines in one process of their own"
    done = subprocess.run([sys.executable, '-c', HELP, json.dumps(argvs)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_help_is_light():
    # What takes seconds to load is not loaded; the time itself depends on the machine and is no test
    argvs = [['--help'], *[[c, '--help'] for c in ('demo', 'train', 'identify', 'app', 'report')]]
    told = run_apart(*argvs)
    assert len(told) == len(argvs) and [status for status, _, _ in told] == [0]*len(argvs)
    assert HEAVY & set(told[-1][2]) == set()
    for command in ('demo', 'train', 'identify', 'app', 'report'): assert command in told[0][1]
    for argv, (_, text, _) in zip(argvs[1:], told[1:], strict=True): assert f'usage: snakeid {argv[0]}' in text


@pytest.mark.parametrize('words', ['', 'trian', 'train', 'train --images', 'train --images x --epochs many', 'identify',
                                   'identify run', 'report run --no-such-option'])
def test_usage(words, capsys):
    from snakeid.cli import main
    with pytest.raises(SystemExit) as e: main(words.split())
    told = capsys.readouterr().err
    assert e.value.code == 2 and told.startswith('usage: snakeid') and 'error: ' in told.splitlines()[-1]


# ---- train ----


def test_train_writes_a_whole_run(trained):
    names = {p.relative_to(trained.run).as_posix() for p in trained.run.rglob('*')}
    assert names == {'bundle', 'bundle/bundle.json', 'bundle/model.safetensors', 'bundle/README.md', 'manifest.csv',
                     'history.csv',
                     'predictions.csv', 'run.json', 'report.html'}
    for text in ('36 rows', '3 species', 'photos checked', 'epoch 1/1', 'left', 'accuracy', 'report.html'):
        assert text in trained.out


def test_train_names_its_settings(trained):
    info = json.loads((trained.run/'run.json').read_text())
    assert info['seed'] == 0 and info['recipe']['epochs'] == 1 and info['recipe']['size'] == 64 and info['lr'] == .003
    assert {'snakeid', 'torch', 'python', 'device', 'arch'} <= set(info) and info['test']['species'] == 3


def test_train_keeps_files_readable(trained):
    # Temporary files are for their owner only; what a run leaves follows the umask like any other file
    mask = os.umask(0)
    os.umask(mask)
    for p in trained.run.rglob('*'):
        if p.is_file(): assert p.stat().st_mode & 0o777 == 0o666 & ~mask, p.name


def test_train_finds_the_next_free_folder(tiny, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('snakeid.runs.train_run', lambda manifest, out, **kwargs: out.mkdir(parents=True))
    for i in (1, 2):
        assert call('train', '--images', tiny.images, '--labels', tiny.labels).status == 0
        assert (Path('runs')/str(i)).is_dir()
    assert [p.name for p in tmp_path.iterdir()] == ['runs']


def test_train_reads_folders(tiny, call, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr('snakeid.runs.train_run',
                        lambda manifest, out, **other: seen.update(manifest=manifest, **other))
    for row in pd.read_csv(tiny.labels).itertuples():
        (tmp_path/row.scientific_name).mkdir(exist_ok=True)
        (tmp_path/row.scientific_name/row.filename).write_bytes((tiny.images/row.filename).read_bytes())
    assert call('train', '--images', tmp_path, '--size', 112, '--seed', 7, '--beta', 1, '--bs', 8).status == 0
    assert len(seen['manifest']) == 36 and seen['manifest'].species.nunique() == 3 and seen['seed'] == 7
    assert (seen['recipe'].size, seen['recipe'].train_size, seen['recipe'].beta, seen['recipe'].bs) == (112, 112, 1, 8)


def test_train_on_camera_traps(train, tmp_path):
    "COCO Camera Traps, and test cameras that training never saw"
    from snakeid.samples.traps import draw_traps
    draw_traps(tmp_path/'season', 120, size=40, cameras=12, species=4, tail=3, seed=2, workers=0)
    season = tmp_path/'season'
    small = ('--arch', 'small_cnn', '--size', 32)
    told = train(tmp_path/'run', season/'images', season/'annotations.json', *small, '--apart', 'location')
    manifest = pd.read_csv(tmp_path/'run'/'manifest.csv')
    assert len(manifest) == 120 and manifest.groupby('location')['split'].nunique().max() == 1
    assert set(manifest['split'].dropna()) == {'train', 'valid', 'test'} and '--apart' not in told.out
    assert (tmp_path/'run'/'report.html').exists()


def test_train_names_columns_to_keep_apart(tiny, call, tmp_path):
    done = call('train', '--images', tiny.images, '--labels', tiny.labels, '--out', tmp_path/'run', '--apart', 'camera')
    assert done.status == 2 and "no column 'camera'" in done.err and len(done.err.splitlines()) == 1


def test_train_for_tensorboard(tiny, train, tmp_path, monkeypatch):
    monkeypatch.setattr('snakeid.runs.predict_photos', lambda *args, **kwargs: exit('trained'))
    with pytest.raises(SystemExit, match='trained'):
        train(tmp_path/'run', tiny.images, tiny.labels, '--tensorboard', '--frozen-epochs', 1)
    assert {p.parent.name for p in (tmp_path/'run').rglob('events.out*')} == {'frozen', 'all layers'}


def test_train_without_the_extra(tiny, call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorboard', None)
    done = call('train', '--images', tiny.images, '--labels', tiny.labels, '--out', tmp_path/'run', '--tensorboard')
    assert done.status == 2 and "pip install 'snakeid[tensorboard]'" in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path/'run').exists()


# ---- identify ----


def test_identify_a_folder(trained, call, tmp_path):
    done = call('identify', trained.run, trained.images, '--out', tmp_path/'table.csv')
    table = pd.read_csv(tmp_path/'table.csv')
    assert done.status == 0 and list(table)[:5] == ['photo_id', 'path', 'species', 'confidence', 'vote_share']
    assert len(table) == 36 and table.photo_id.is_unique and table.flag.isna().all()
    assert set(table.species) <= {*pd.read_csv(trained.labels).scientific_name, 'unknown'}
    assert table.confidence.between(0, 1).all() and set(table.vote_share) <= {.25, .5, .75, 1.}
    # A line for each of the first 20, and where to find the others
    assert done.out.count('of the views') == 20 and '16 more' in done.out and str(tmp_path/'table.csv') in done.out


def test_identify_some_photos(trained, call):
    photos = sorted(trained.images.iterdir())[:2]
    done = call('identify', trained.run, *photos, 'gone.jpg')
    assert done.status == 0 and all(p.name in done.out for p in photos)
    assert 'gone.jpg: not identified (missing file)' in done.out


@pytest.fixture
def taxa(trained, tmp_path):
    "A table of the species, the first venomous and known from elsewhere, and one that the model does not know"
    names = sorted(set(pd.read_csv(trained.labels).scientific_name))
    rows = [(s, 'Pictidae', 'venomous' if i == 0 else 'harmless', 'India' if i == 0 else 'Philippines')
            for i, s in enumerate(names)]
    table = pd.DataFrame([*rows, ('Naja ignota', 'Elapidae', 'venomous', 'Philippines')],
                         columns=['scientific_name', 'family', 'venomous', 'countries'])
    table.to_csv(tmp_path/'taxa.csv', index=False)
    return tmp_path/'taxa.csv'


def test_identify_with_what_else_is_known(trained, call, tmp_path, taxa):
    photos = sorted(trained.images.iterdir())[:6]
    options = '--sets', '--taxa', taxa, '--country', 'Philippines', '--rank', .7, '--venom', '--unknown', 'never'
    for name in ('a.csv', 'b.parquet'):
        done = call('identify', trained.run, *photos, *options, '--out', tmp_path/name)
        assert done.status == 0 and 'will never name them: Naja ignota' in done.out, done.err
    one, two = pd.read_csv(tmp_path/'a.csv'), pd.read_parquet(tmp_path/'b.parquet')
    assert list(one) == list(two) and one.species.tolist() == two.species.tolist()
    assert {'candidates', 'unrestricted', 'note', 'rank', 'name', 'decision', 'expected_cost', 'venomous'} <= set(one)
    assert (one.note.notna() == one.unrestricted.eq(sorted(pd.read_csv(trained.labels).scientific_name)[0])).all()


@pytest.mark.parametrize('options,part', [
    (('--country', 'Philippines'), 'name it with --taxa'),
    (('--taxa', 'TAXA', '--country', 'Phillipines'), 'Philippines'),
    (('--views', 'foru'), 'try four'), (('--join', 'majorty'), 'majority'), (('--backend', 'tpu'), "no backend 'tpu'"),
    (('--backend', 'int8'), 'model.int8.onnx'), (('--views', 'ten', '--unknown', 'energy'), 'calibrated for')])
def test_identify_refuses_in_one_sentence(trained, call, taxa, options, part):
    photo = next(trained.images.iterdir())
    done = call('identify', trained.run, photo, *(taxa if o == 'TAXA' else o for o in options))
    assert done.status == 2 and part in done.err and done.err.strip().count('\n') == 0, done.err


def test_export_and_identify_in_eight_bits(trained, call, tmp_path):
    run = shutil.copytree(trained.run, tmp_path/'run')
    assert call('export', run).status == 0 and call('export', run, '--int8').status == 0
    photos = sorted(trained.images.iterdir())[:4]
    done = call('identify', run, *photos, '--backend', 'int8', '--out', tmp_path/'t.csv')
    assert done.status == 0 and len(pd.read_csv(tmp_path/'t.csv')) == 4, done.err


def test_identify_takes_a_bundle_and_is_sure(trained, call, tmp_path):
    for i, model in enumerate((trained.run, trained.run/'bundle')):
        assert call('identify', model, trained.images, '--out', tmp_path/f'{i}.csv').status == 0
    assert (tmp_path/'0.csv').read_bytes() == (tmp_path/'1.csv').read_bytes()


def test_identify_agrees_with_the_run(trained, call, tmp_path):
    # The photos that judged the run get the same names when somebody asks for them
    judged = pd.read_csv(trained.run/'predictions.csv').set_index('path')
    assert call('identify', trained.run, *judged.index, '--out', tmp_path/'table.csv').status == 0
    table = pd.read_csv(tmp_path/'table.csv').set_index('path').loc[judged.index]
    assert (table.species == judged.species).all()
    np.testing.assert_allclose(table.confidence, judged.confidence, atol=1e-3)


def test_submission(trained, call, tmp_path):
    done = call('identify', trained.run, trained.images, '--submission', tmp_path/'submission.csv')
    table, labels = pd.read_csv(tmp_path/'submission.csv'), pd.read_csv(trained.labels)
    assert done.status == 0 and list(table) == ['hashed_id', *sorted(labels.scientific_name.unique())]
    assert sorted(table.hashed_id) == sorted(labels.hashed_id)
    probs = table.drop(columns='hashed_id')
    assert (probs >= 0).all(axis=None) and (probs.sum(axis=1) < 1).all() and (probs.sum(axis=1) > .9999).all()
    assert [p.name for p in tmp_path.iterdir()] == ['submission.csv']


def test_submission_names_the_same_species(trained, call, tmp_path):
    files = [tmp_path/'table.csv', tmp_path/'submission.csv']
    call('identify', trained.run, trained.images, '--out', files[0], '--submission', files[1])
    table, submission = (pd.read_csv(f) for f in files)
    agreed = table.vote_share.to_numpy() == 1            # else the vote may overrule the mean
    best = submission.drop(columns='hashed_id').idxmax(axis=1).to_numpy()
    assert agreed.any() and (best[agreed] == table.species.to_numpy()[agreed]).all()


# ---- report ----


class Links(HTMLParser):
    "Collect what a page would fetch or lead to"
    def __init__(self):
        super().__init__()
        self.found, self.tags, self.text = [], set(), []
    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [v or '' for k, v in attrs if k in ('src', 'href', 'srcset', 'action', 'data', 'poster')]
        self.found += [u for k, v in attrs if k == 'style' for u in re.findall(r'url\(([^)]*)\)', v or '')]
    def handle_data(self, data): self.text.append(data)


def test_report_is_self_contained(trained):
    html = (trained.run/'report.html').read_text(encoding='utf-8')
    page = Links()
    page.feed(html)
    assert [u[:60] for u in page.found if not u.startswith(('data:', '#'))] == []
    assert 'img' in page.tags and not page.tags & {'link', 'iframe', 'object', 'embed', 'base'}
    styles = ' '.join(re.findall(r'<style>(.*?)</style>', html, re.S))
    assert '@import' not in styles and 'url(' not in styles
    assert not re.search(r'https?://', re.sub(r'data:[^"]*', '', html))


def test_report_tells_of_every_species(trained):
    text = (trained.run/'report.html').read_text(encoding='utf-8')
    judged = set(pd.read_csv(trained.run/'manifest.csv').query("split == 'test'").species)
    assert judged and all(s in text for s in judged)
    assert 'medical' in text and str(trained.run.parent) not in text # Mailed to others, it tells nothing of the machine


def test_report_again(trained, call, tmp_path, look):
    before = look(trained.run)
    assert call('report', trained.run, '--out', tmp_path/'again'/'report.html').status == 0
    assert look(trained.run) == before and set(look(tmp_path)) == {'again', 'again/report.html'}
    assert (tmp_path/'again'/'report.html').read_bytes() == before['report.html']


def test_report_survives_lost_photos(trained, call, tmp_path):
    # The photos may have moved since: the report then does without their pictures
    for p in trained.run.glob('*.*'):
        (tmp_path/p.name).write_bytes(p.read_bytes().replace(str(trained.images).encode(), b'moved'))
    assert call('report', tmp_path).status == 0
    assert 'data:image/jpeg' not in (tmp_path/'report.html').read_text()


def test_report_escapes_names(tmp_path):
    from snakeid.report.page import write_report, write_run
    from snakeid.train.fit import Fitted
    names = ['<script>alert(1)</script>', 'A & B "c"']
    manifest = pd.DataFrame(dict(photo_id=list('abcd'), path=list('abcd'), species=names*2, flag='',
                                 split=['train']*2 + ['test']*2))
    predictions = pd.DataFrame(dict(photo_id=['c', 'd'], path=['c', 'd'], species=names[::-1], confidence=.9,
                                    vote_share=1., flag=''))
    history = pd.DataFrame(dict(epoch=[1], train_loss=1., valid_loss=1., accuracy=1., macro_f1=1., stage='all layers'))
    page = Links()
    report = write_report(write_run(tmp_path, manifest, Fitted(history, .1, 0), predictions))
    html = report.read_text(encoding='utf-8')
    page.feed(html)
    # The one script is the page's own, which sorts its tables
    assert html.count('<script') == 1 and all(any(name in t for t in page.text) for name in names)


# ---- demo ----


def test_demo_trains_once(call, tmp_path, monkeypatch, trained):
    drawn, calls = [], []
    monkeypatch.setattr('snakeid.samples.collection.draw_collection', lambda folder, **kwargs: drawn.append(folder))
    monkeypatch.setattr('snakeid.data.tables.read_aicrowd', lambda labels, images: 'manifest')
    def train_run(manifest, out, **kwargs): calls.append(out), shutil.copytree(trained.run, out, dirs_exist_ok=True)
    monkeypatch.setattr('snakeid.runs.train_run', train_run)
    for _ in range(2): done = call('demo', '--out', tmp_path/'demo')
    assert drawn == [tmp_path/'demo-photos'] and calls == [tmp_path/'demo'] and 'run before' in done.out
