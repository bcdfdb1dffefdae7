"The checks of the notebooks as files catch what they should"
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tool(monkeypatch):
    "Import one of the scripts in .ci, with its siblings in reach"
    monkeypatch.syspath_prepend(ROOT/'.ci')
    yield import_module
    for name in ('gates', 'layers', 'notebooks', 'refresh', 'readme'): sys.modules.pop(name, None)


def code(source, *outputs): return dict(cell_type='code', source=[source], outputs=list(outputs), metadata={}, id='a')


def printed(text): return dict(output_type='stream', name='stdout', text=[text])


@pytest.fixture
def check(tool, tmp_path):
    "Check a notebook of these cells, as text of one problem a line"
    def _check(*cells, notes=False, **kwargs):
        path = tmp_path/'nb.ipynb'
        path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
        problems, noted = tool('notebooks').check_notebook(path, name='nb', flags={'slow'}, **kwargs)
        return noted if notes else problems
    return _check


def test_fine_notebook(check):
    assert check(code('#| default_exp core'), code('#| export\ndef f(): pass'), code('print(1)', printed('1'))) == []


@pytest.mark.parametrize('path', ['/home/me/photos', '/Users/me/photos', '/tmp/abc/x.jpg', r'C:\Users\me', '/root/x'])
def test_machine_paths(check, path):
    assert "a path of somebody's machine" in check(code('print(p)', printed(f'in {path}')))[0]
    assert "a path of somebody's machine" in check(code(f'p = "{path}"\nprint(p)', printed('in photos')))[0]


@pytest.mark.parametrize('text', ['photos/home/1.jpg', 'https://example.org/home/me', '../tmp/x', 'a/tmp/b', 'and/or'])
def test_harmless_paths(check, text): assert check(code('print(p)', printed(text))) == []


def test_folder_of_this_machine(check):
    assert "'/odd/place'" in check(code('print(p)', printed('/odd/place/x')), machine=('/odd/place',))[0]


def test_pictures_are_not_read(check):
    picture = dict(output_type='display_data', metadata={}, data={'image/png': '/tmp/abc', 'text/plain': ['<Figure>']})
    inside = dict(output_type='display_data', metadata={}, data={
        'text/html': ['<img src="data:image/png;base64,aa/tmp/abc">'], 'text/plain': ['x']})
    assert check(code('plot()', picture), code('plot()', inside)) == []


def test_error_output(check):
    failed = dict(output_type='error', ename='ValueError', evalue='no', traceback=[])
    assert 'nb, cell 1: its output is an error, ValueError' in check(code('f()', failed))[0]


def test_missing_outputs(check):
    assert check(code('x = 1'), code('x')) == [
        'nb, cell 2: shows something, but no output is saved: refresh the notebook',
        'nb: no outputs are saved: refresh the notebook']
    # Nothing to show: hidden, skipped, exported, or only imports and asserts
    assert check(code('#| slow\nprint(1)'), code('#| eval: false\nprint(1)'), code('#| hide\nx = 1\nx'),
                 code('#| export\ndef f(): return 1'), code('import os\nassert os')) == []


def test_size_and_lines(check):
    assert 'over 600' in check(code('print(1)', printed('x'*700_000)))[0]
    assert 'over 200' in check(code('print(1)', printed('x'*300_000)), notes=True)[0]
    assert 'a line of 130 characters' in check(code('#'+'x'*129), notes=True)[0]


def test_refresh_keeps_skipped_cells(tool, tmp_path):
    pytest.importorskip('nbclient', reason="nbclient comes with the dev extra")
    pytest.importorskip('ipykernel', reason="ipykernel comes with the dev extra")
    path = tmp_path/'nb.ipynb'
    cells = [code('print(6*7)'), code('#| slow\nraise ValueError', printed('kept')),
             code('#| eval: false\nraise ValueError', printed('kept too'))]
    for i, cell in enumerate(cells): cell.update(id=f'cell-{i}', execution_count=None)
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    tool('refresh').refresh(path, flags={'slow'}, timeout=60)
    made = json.loads(path.read_text())
    texts = [''.join(cell['outputs'][0]['text']) for cell in made['cells']]
    assert texts == ['42\n', 'kept', 'kept too']
    assert all('tags' not in cell['metadata'] or not cell['metadata']['tags'] for cell in made['cells'])


def test_refresh_leaves_a_failing_notebook(tool, tmp_path):
    client = pytest.importorskip('nbclient', reason="nbclient comes with the dev extra")
    pytest.importorskip('ipykernel', reason="ipykernel comes with the dev extra")
    path = tmp_path/'nb.ipynb'
    cells = [code('print(1)'), code('raise ValueError("planted")')]
    for i, cell in enumerate(cells): cell.update(id=f'cell-{i}', execution_count=None)
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    before = path.read_bytes()
    with pytest.raises(client.exceptions.CellExecutionError, match='planted'):
        tool('refresh').refresh(path, flags=set(), timeout=60)
    assert path.read_bytes() == before


def test_readme(tool, tmp_path):
    pytest.importorskip('nbconvert', reason="nbconvert comes with the dev extra")
    cells = [dict(cell_type='markdown', source=['# snakeid'], metadata={}, id='m'), code('#| hide\nimport os'),
             code('#| eval: false\n2*3', printed('6'))]
    for i, cell in enumerate(cells): cell.update(id=f'cell-{i}')
    for cell in cells[1:]: cell.update(execution_count=None)
    (tmp_path/'nbs').mkdir()
    notebook = dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)
    (tmp_path/'nbs'/'index.ipynb').write_text(json.dumps(notebook))
    readme = tool('readme')
    text, images = readme.make_readme(tmp_path)
    assert text == '# snakeid\n\n```python\n2*3\n```\n\n```text\n6\n```\n' and not images
    assert readme.check_readme(tmp_path)
    (tmp_path/'README.md').write_text(text)
    assert readme.check_readme(tmp_path) == []


# ---- tests in a process of their own

def test_counts_of_a_file_of_tests(tool, tmp_path):
    (tmp_path/'test_some.py').write_text('import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n'
                                         '@pytest.mark.skip\ndef test_c(): pass\n')
    result, told = tool('gates').run_pytest(str(tmp_path/'test_some.py'), '-q')
    assert (result.passed, result.failed, result.skipped) == (1, 1, 1) and 'assert 0' in told


@pytest.mark.parametrize('body', ['import os; os._exit(3)', 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)'])
def test_a_crash_is_a_failure(body, tool, tmp_path):
    (tmp_path/'test_crash.py').write_text(f'def test_a(): pass\ndef test_b(): {body}\n')
    result, _ = tool('gates').run_pytest(str(tmp_path/'test_crash.py'), '-q')
    assert (result.passed, result.failed) == (0, 1) and 'exit status' in result.problems[0]


def test_no_test_is_a_failure(tool, tmp_path):
    (tmp_path/'test_none.py').write_text('')
    assert tool('gates').run_pytest(str(tmp_path/'test_none.py'), '-q')[0].failed == 1


@pytest.mark.skipif(not hasattr(os, 'killpg'), reason="needs groups of processes")
def test_a_stuck_file_is_ended_with_all_it_started(tool, tmp_path):
    (tmp_path/'test_stuck.py').write_text(
        'import os, signal, subprocess, sys, time\nfrom pathlib import Path\n'
        'def test_a():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
        '    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])\n'
        '    Path(__file__).with_name("pid").write_text(str(child.pid))\n    time.sleep(300)\n')
    started = time.monotonic()
    result, _ = tool('gates').run_pytest(str(tmp_path/'test_stuck.py'), '-q', limit=10)
    assert result.failed == 1 and 'ended after 10 s' in result.problems[0] and time.monotonic() - started < 60
    pid = int((tmp_path/'pid').read_text())
    for _ in range(50):                                  # until whoever inherits it has taken note
        try: os.kill(pid, 0)
        except ProcessLookupError: break
        stat = Path(f'/proc/{pid}/stat')
        if stat.exists() and stat.read_text().rsplit(')', 1)[1].split()[0] == 'Z': break
        time.sleep(.1)
    else: pytest.fail('a process was left behind')
