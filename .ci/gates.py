"""Run every check and test in turn: `python .ci/gates.py [STEP ...]`.

Steps that fail are named with what to do, and the others still run. The last line is `N passed, N failed`, where each
check counts as one and each test as one; the exit status is 0 only if nothing failed.
"""
import contextlib
import filecmp
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from layers import check_layers
from notebooks import ROOT, check_notebooks
from public import check_public

# Written by hand, if at all: everything else in the library comes from a notebook
HAND_WRITTEN = ('__init__.py', '__main__.py')
# Tests that take long begin first
LONG = ('test_train.py', 'test_stream.py', 'test_backends.py', 'test_road.py', 'test_cli.py', 'test_readme_blocks.py',
        'test_browser_docs.py')
# What brings a file back into line, by its suffix
MENDS = {'.ipynb': 'run nbdev_clean', '.yml': 'it follows settings.ini: run make docs'}


@dataclass
class Result:
    "What a step found"
    passed:int=0 # Checks or tests that held
    problems:list[str]=field(default_factory=list) # One line, or a few, for each that did not
    notes:list[str]=field(default_factory=list) # Worth a look, no failure
    failed:int=0 # Tests that failed, where they have shown themselves already
    skipped:int=0 # Tests, or the check itself, that could not run here


def judge(
    problems:list[str], # What is wrong
    notes:list[str]|None=None, # What is worth a look
)->Result: # One check, passed or failed
    "Count a check as one, however much it found"
    return Result(passed=int(not problems), failed=int(bool(problems)), problems=problems, notes=notes or [])


def made_files(
    top:Path, # Top of the checkout, or of its copy
)->set[str]: # Paths in it
    "List what nbdev makes or rewrites"
    paths = [path for name in ('nbs', 'snakeid') for path in (top/name).rglob('*')
             if path.suffix in ('.py', '.ipynb', '.yml') and path.name not in ('sidebar.yml', '_quarto.yml')]
    paths = [path for path in paths if not path.is_symlink() and '.ipynb_checkpoints' not in path.parts]
    return {path.relative_to(top).as_posix() for path in [*paths, top/'pyproject.toml'] if path.exists()}


def check_agree()->Result:
    "Clean and export a copy of the tree: nothing may differ"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)/'copy'
        copy.mkdir()
        shutil.copy(ROOT/'settings.ini', copy)
        for name in made_files(ROOT):
            (copy/name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT/name, copy/name)
        # nbdev never takes a module away, so without this one whose notebook is gone would stay unnoticed
        for path in (copy/'snakeid').rglob('*.py'):
            if path.name not in HAND_WRITTEN: path.unlink()
        commands = ('from nbdev.clean import nbdev_clean', 'from nbdev.doclinks import nbdev_export',
                    'from nbdev.quarto import refresh_quarto_yml',
                    'nbdev_clean.__wrapped__()', 'nbdev_export.__wrapped__()', 'refresh_quarto_yml()')
        done = subprocess.run([sys.executable, '-W', 'ignore', '-c', '\n'.join(commands)], cwd=copy, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode: return judge([f"nbdev cannot export the notebooks:\n{done.stdout}"])

        here, made, problems = made_files(ROOT), made_files(copy), []
        for name in sorted(here | made):
            mend = MENDS.get(Path(name).suffix, 'run nbdev_export')
            if name not in made: problems.append(f"{name}: no notebook exports it: remove it, or write the notebook")
            elif name not in here: problems.append(f"{name}: belongs in the tree and is not there: {mend}")
            elif not filecmp.cmp(ROOT/name, copy/name, shallow=False):
                problems.append(f"{name}: differs from what the notebooks and settings.ini make: {mend}")
        return judge(problems)


def check_ruff()->Result:
    "Lint what people write and what notebooks export"
    command = [sys.executable, '-m', 'ruff', 'check', '--no-cache', '--output-format=concise', '.']
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return judge(done.stdout.splitlines() if done.returncode else [])


def check_floors()->Result:
    "Imports only point down"
    return judge(check_layers(ROOT))


def check_files()->Result:
    "Notebooks are fit to be read"
    return judge(*check_notebooks(ROOT))


def check_explained()->Result:
    "Every public name has its page, docments and an example"
    problems, counts = check_public(ROOT)
    print(f"  {counts}")
    return judge(problems)


def check_readme()->Result:
    "README.md is what nbs/index.ipynb makes"
    if not (ROOT/'nbs'/'index.ipynb').exists(): return Result(skipped=1, notes=["there is no nbs/index.ipynb yet"])
    import readme
    problems = readme.check_readme(ROOT)
    return judge([*problems, "run python .ci/readme.py"] if problems else [])


def count_workers()->int:
    "Processes that run tests side by side"
    # Each holds torch and fastai, 1 GB and more, so cores alone do not decide
    return min(os.cpu_count() or 1, 4)


def run_pytest(
    *args:str, # What pytest is to run
    limit:float=1200, # Seconds until it is ended, with all that it started
)->tuple[Result,str]: # Its counts, and what it printed
    "Run pytest in a process of its own, and count"
    with tempfile.TemporaryDirectory() as folder:
        report, printed = Path(folder)/'report.xml', Path(folder)/'printed.txt'
        # A test that takes long shows where it is, even if it is stuck in C code, which pytest-timeout cannot leave
        options = [f'--junit-xml={report}', '-p', 'no:cacheprovider', '-o', 'faulthandler_timeout=240']
        env = {**os.environ, 'OMP_NUM_THREADS': '1'}
        with printed.open('w') as out:
            run = subprocess.Popen([sys.executable, '-m', 'pytest', *options, *args], cwd=ROOT, env=env, stdout=out,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
            try: code = run.wait(limit)
            except subprocess.TimeoutExpired: code = None
            finally:
                # Also a process that a test has left behind
                with contextlib.suppress(ProcessLookupError): os.killpg(run.pid, signal.SIGKILL)
                run.wait()
        told = printed.read_text(errors='replace')
        if code is None: return Result(failed=1, problems=[f"{args[0]}: ended after {limit:.0f} s"]), told
        if not report.exists():
            return Result(failed=1, problems=[f"{args[0]}: pytest itself ended with exit status {code}"]), told
        suite = ET.parse(report).getroot().find('testsuite')
    tests, skipped = int(suite.get('tests')), int(suite.get('skipped'))
    failed = int(suite.get('failures')) + int(suite.get('errors'))
    # Exit status 5: no test found. That, or a crash that no test stands for, is a failure too
    if code and not failed: return Result(failed=1, problems=[f"{args[0]}: pytest ended with exit status {code}"]), told
    return Result(passed=tests - failed - skipped, failed=failed, skipped=skipped), told


def test_notebooks()->Result:
    "Every notebook runs, one test each"
    result, told = run_pytest('tests/test_notebooks.py', '-v', f'-n{count_workers()}', '--dist=worksteal',
                              '--durations=5', limit=2400)
    print(told, flush=True)
    return result


def test_package()->Result:
    "The tests that would bore a reader of the notebooks"
    # Each file in a process of its own, for what one leaves in memory, or breaks, is nothing to the others
    files = [path for path in (ROOT/'tests').glob('test_*.py') if path.name != 'test_notebooks.py']
    files = sorted(files, key=lambda path: (path.name not in LONG, -path.stat().st_size))
    whole = Result()
    with ThreadPoolExecutor(count_workers()) as pool:
        runs = {pool.submit(run_pytest, f'tests/{path.name}', '-v', '--durations=3'): path for path in files}
        for run in as_completed(runs):
            result, told = run.result()
            counts = f"{result.passed} passed, {result.failed} failed, {result.skipped} skipped"
            # What went well needs no more than its last line
            print(told if result.failed else f"  {runs[run].name:<24} {counts}", flush=True)
            whole.problems += result.problems
            for key in ('passed', 'failed', 'skipped'): setattr(whole, key, getattr(whole, key) + getattr(result, key))
    return whole


def untracked()->set[str]|None: # Paths; None where git cannot say
    "List files that git neither tracks nor ignores"
    command = ['git', 'ls-files', '--others', '--exclude-standard']
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    return None if done.returncode else set(done.stdout.splitlines())


# Name on the command line: heading, function
STEPS:dict[str, tuple[str, Callable[[], Result]]] = {
    'agree': ("notebooks and modules agree", check_agree),
    'ruff': ("ruff", check_ruff),
    'floors': ("imports only point down", check_floors),
    'files': ("notebooks as files", check_files),
    'public': ("every public name is explained", check_explained),
    'readme': ("README.md agrees with nbs/index.ipynb", check_readme),
    'notebooks': ("every notebook runs", test_notebooks),
    'tests': ("tests of the package", test_package),
}


def main(
    names:list[str], # Steps to run; all unless given
)->int: # Exit status
    if unknown := [name for name in names if name not in STEPS]:
        print(f"No step {' '.join(unknown)}; there are: {' '.join(STEPS)}")
        return 2
    names = names or list(STEPS)
    before, results = untracked(), []

    def report(heading, result, seconds):
        results.append((heading, result, seconds))
        for line in result.notes: print(f"  note: {line}")
        for line in result.problems: print(f"  {line}")
        print(f"  {'FAILED' if result.failed else 'ok' if result.passed else 'skipped'}, {seconds:.0f} s", flush=True)

    for i, name in enumerate(names, 1):
        heading, function = STEPS[name]
        print(f"[{i}/{len(names)}] {heading}", flush=True)
        started = time.monotonic()
        try: result = function()
        # A check that breaks is a failure of that check, and no reason to leave out the others
        except Exception as error: result = judge([f"the check itself broke: {type(error).__name__}: {error}"])
        report(heading, result, time.monotonic() - started)

    if before is not None:
        print("[last] nothing is left behind", flush=True)
        left = sorted((untracked() or set()) - before)
        left = [f"{name}: made by the steps above, and not ignored by git" for name in left]
        report("nothing is left behind", judge(left), 0)

    print("\nIn short")
    for heading, result, seconds in results:
        counts = f"{result.passed} passed" + (f", {result.failed} failed" if result.failed else '') \
            + (f", {result.skipped} skipped" if result.skipped else '')
        print(f"  {'FAILED ' if result.failed else '       '}{heading:<40} {seconds:>5.0f} s  {counts}")
    passed, failed = (sum(getattr(result, key) for _, result, _ in results) for key in ('passed', 'failed'))
    print(f"{passed} passed, {failed} failed", flush=True)
    return int(bool(failed))


if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
