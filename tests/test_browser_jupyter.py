"The widgets in JupyterLab and in Notebook 7: decisions outlive a change of species and the kernel, large files arrive"
import csv
import json
import sys
from contextlib import suppress
from importlib.util import find_spec

import pytest

LONG = 120_000 # Milliseconds for a kernel to start on a busy machine
SHORT = 60_000 # … and for a click to be answered
CELLS = ["""import pandas as pd
from ipywidgets import HTML, VBox
from snakeid.explore.browse import browse
from snakeid.explore.dropzone import make_dropzone
from snakeid.explore.review import review
photos = pd.read_csv('photos.csv')
browse(photos, per_page=2)""", "review(photos, 'decisions.csv')", """told = HTML()
def tell(text): told.value = text
VBox([make_dropzone(lambda data: tell(f'{len(data):,} bytes came'), tell), told])"""]
TOKEN = 'a-word-for-tests' # Jupyter's servers take orders only from who knows it
PAGES = dict(lab=('jupyterlab', 'lab/tree/look.ipynb'), notebook=('notebook', 'notebooks/look.ipynb'))


@pytest.fixture
def folder(six):
    "A notebook with the widgets, and settings that ask nothing of the network"
    six.write('look.ipynb', *CELLS)
    (six.folder/'config'/'labconfig').mkdir(parents=True)
    (six.folder/'config'/'labconfig'/'page_config.json').write_text(json.dumps(dict(disabledExtensions={
        '@jupyterlab/apputils-extension:announcements': True})))
    return six.folder


def start_kernel(page, address, name):
    "Start the notebook's kernel before its page is opened, so that no click can come before the kernel"
    order = dict(path=name, name=name, type='notebook', kernel=dict(name='python3'))
    answer = page.request.post(f'{address}api/sessions', data=order, timeout=LONG,
                               headers=dict(Authorization=f'token {TOKEN}'))
    assert answer.ok, answer.text()


@pytest.mark.timeout(500)
@pytest.mark.parametrize('kind', PAGES)
def test_widgets_in(kind, browser, serve, folder):
    from playwright.sync_api import expect
    module, path = PAGES[kind]
    if find_spec(module) is None: pytest.skip(f"{module} is not installed: it comes with the dev extra")
    command = [sys.executable, '-m', module, '--no-browser', '--port={port}', '--ServerApp.ip=127.0.0.1',
               '--allow-root', f'--IdentityProvider.token={TOKEN}', f'--ServerApp.root_dir={folder}']
    home = dict(JUPYTER_CONFIG_DIR=str(folder/'config'), JUPYTER_RUNTIME_DIR=str(folder/'runtime'),
                JUPYTERLAB_SETTINGS_DIR=str(folder/'settings'), JUPYTERLAB_WORKSPACES_DIR=str(folder/'spaces'))
    with serve(folder, *command, OMP_NUM_THREADS='1', **home) as address:
        page, asked = browser.new_page(viewport=dict(width=1280, height=1000)), []
        try:
            page.set_default_timeout(SHORT)
            page.on('request', lambda r: asked.append(r.url))

            def accept(dialog):
                "Jupyter asks before a restart, and says so when its server was slow: shown where the test fails"
                print('dialog:', dialog.first.inner_text())
                dialog.locator('.jp-mod-accept').first.click()

            page.add_locator_handler(page.locator('.jp-Dialog'), accept)

            def choose(menu, item):
                "An item of the menu bar by its whole name: others hold the same words"
                page.get_by_role('menuitem', name=menu, exact=True).click()
                page.get_by_role('menuitem', name=item, exact=True).click()

            def run_all():
                "Run the cells; a notebook whose kernel is not there yet forgets to"
                for _ in range(12):
                    choose('Run', 'Run All Cells')
                    with suppress(AssertionError):
                        prompt = page.locator('.jp-InputArea-prompt').first
                        return expect(prompt).not_to_have_text('[ ]:', timeout=10_000)
                pytest.fail("the cells do not run")

            def card(photo_id):
                "The innermost box with a photo of Review"
                return page.locator('.widget-vbox').filter(has=page.get_by_role('button', name='quarantine')).filter(
                    has=page.get_by_alt_text(photo_id, exact=True)).last

            def look(n, texts, within=SHORT):
                "Wait until `n` are decided, and see what each photo says"
                expect(page.get_by_text(f'of 1: {n} photos decided')).to_be_visible(timeout=within)
                for photo_id, text in texts.items():
                    expect(card(photo_id).get_by_text(text, exact=True)).to_be_visible()

            start_kernel(page, address, 'look.ipynb')
            page.goto(f'{address}{path}?token={TOKEN}', timeout=LONG)
            expect(page.get_by_text('Idle').or_(page.locator('[data-status=idle]')).first).to_be_attached(timeout=LONG)
            run_all()
            # Browse: six photos on pages of two
            expect(page.get_by_text('of 3: 6 of 6 photos')).to_be_visible(timeout=LONG)
            page.get_by_role('button', name='next ▶').first.click()
            expect(page.get_by_alt_text('p2', exact=True).first).to_be_visible()
            # Review: three decisions, another species and back
            card('p0').get_by_role('button', name='keep').click()
            card('p1').get_by_placeholder('another species').fill('viper')
            card('p1').get_by_role('button', name='relabel').click()
            look('2 of 6', dict(p0='✓ kept', p1='→ viper'))
            card('p2').get_by_role('button', name='quarantine').click()
            said = dict(p0='✓ kept', p1='→ viper', p2='✕ quarantined')
            look('3 of 6', said)
            menu = page.get_by_label('species', exact=True).last
            menu.select_option(index=2)
            look('1 of 3', dict(p1='→ viper'))
            menu.select_option(index=0)
            look('3 of 6', said)
            # A kernel that knows nothing of all this
            choose('Kernel', 'Restart Kernel and Clear Outputs of All Cells…')
            expect(page.get_by_text('photos decided')).to_have_count(0)
            run_all()
            look('3 of 6', said, LONG)
            with open(folder/'decisions.csv', newline='', encoding='utf-8') as f:
                decided = {r['photo_id']: r['decision'] for r in csv.DictReader(f)}
            assert decided == dict(p0='keep', p1='relabel', p2='quarantine')
            # More than a message of Jupyter's servers may hold
            (folder/'large.jpg').write_bytes(bytes(12_345_678))
            page.get_by_label('Choose or take a photo').set_input_files(folder/'large.jpg')
            expect(page.get_by_text('12,345,678 bytes came')).to_be_visible()
            assert [u for u in asked if not u.startswith((address, 'data:', 'blob:'))] == []
        finally: page.close()
