"""`ouikit list | run | check | new | book | bench`: the laboratory from a terminal."""

import argparse
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from loky import cpu_count

from ouikit.lab import check, keys, notebook, record, scaffold, tables
from ouikit.lab.chapter import Chapter, UnknownNameError, chapters, runs_folder, slugs
from ouikit.lab.paper import OUR_OWN
from ouikit.lab.parameters import ParameterError, Parameters, nearest
from ouikit.lab.progress import BookProgress
from ouikit.lab.run import Run, RunError, execute, find, last_cost, publish
from ouikit.lab.several import execute_all
from ouikit.lab.spec import LOCAL, Engine, EngineError, RunSpec

WRONG_CALL = 2
REFRESH = 300  # seconds after which `ouikit book` shows what has been run in the meantime
BENCHMARKS = Path(__file__).parents[1] / "bench"


def main(words: Sequence[str]) -> int:
    """Do what the words say; returns the exit code: 0 done, 1 failed, 2 wrong call."""
    try:
        if words[:1] == ["run"] and {"-h", "--help"} & set(words):
            named = [word for word in words[1:] if word in slugs(keys.repo_root())]
            if named:
                return _parameters(named[0])
        args = _parser().parse_args(words)
        done = args.do(args)
        sys.stdout.flush()
        return done
    except (UnknownNameError, ParameterError, scaffold.SlugError) as error:
        print(f"ouikit: {error}", file=sys.stderr)
        return WRONG_CALL
    except BrokenPipeError:  # the reader, `head` for one, has seen enough; nothing is left to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (RuntimeError, ValueError, OSError) as error:  # what the laboratory raises, each with its fix
        print(f"ouikit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "ouikit: stopped; finished cells are kept and the same command goes on from there",
            file=sys.stderr,
        )
        return 130


class _Parser(argparse.ArgumentParser):
    """argparse with the nearest command in its complaint."""

    def error(self, message: str) -> NoReturn:
        bad = message.partition("invalid choice: '")[2].partition("'")[0]
        near = get_close_matches(bad, ("list", "run", "check", "new", "book", "bench"), n=1)
        super().error(message + (f"; did you mean {near[0]!r}?" if near else ""))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ouikit", description="Run the papers of this book.")
    parser.add_argument("--version", action="version", version=f"ouikit {version('ouikit')}")
    commands = parser.add_subparsers(required=True, metavar="list | run | check | new | book | bench")

    add = commands.add_parser("list", help="the chapters, their verdicts and when they were run")
    add.set_defaults(do=_list)

    add = commands.add_parser("run", help="run one chapter; `ouikit run SLUG --help` shows its parameters")
    add.add_argument("slug", help="a chapter of `ouikit list`")
    add.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="set a parameter")
    add.add_argument("--scale", default="reduced", help="a named scale of the chapter (default: reduced)")
    _add_engine(add)
    add.add_argument("--force", action="store_true", help="run again what is there already")
    add.add_argument(
        "--publish", action="store_true", help="copy the record to book/results/, to be committed"
    )
    add.set_defaults(do=_run)

    add = commands.add_parser("check", help="the form of chapters, without running them")
    add.add_argument("slug", nargs="*", help="default: all")
    add.add_argument("--fix", action="store_true", help="rewrite notebooks in normal form first")
    add.add_argument(
        "--records",
        action="store_true",
        help="derive committed records again from their rows as well (about a minute); with --fix, first let "
        "them say what today's notebook and claims make of these rows",
    )
    add.add_argument(
        "--again",
        action="store_true",
        help="as --records, and compute one cell of each of their sweeps again, taken at random (minutes)",
    )
    add.set_defaults(do=_check)

    add = commands.add_parser("new", help="write a new chapter pair that runs at once")
    add.add_argument("slug", help="lower case with underscores; the name of both files")
    add.add_argument("--title", required=True, help="the paper's title")
    add.set_defaults(do=_new)

    add = commands.add_parser("book", help="run what is missing at reduced scale and build the HTML book")
    add.add_argument("--html", type=Path, help="where to put the site (default: build/html)")
    add.add_argument("--only", type=_slugs, default=[], metavar="A,B", help="run these chapters only")
    many = "chapters that run at a time (default: one a core; with --jobs or --engine one)"
    add.add_argument("--at-once", type=_positive, metavar="N", help=many)
    _add_engine(add)
    add.set_defaults(do=_book)

    add = commands.add_parser("bench", help="benchmarks of the package: ratios against peers, in one process")
    add.add_argument("name", nargs="*", help="default: all")
    add.add_argument(
        "--publish", action="store_true", help="copy the record to book/results/, to be committed"
    )
    add.add_argument(
        "--machine", metavar="LABEL", help="record it as NAME-LABEL, beside that of another machine"
    )
    add.set_defaults(do=_bench)
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    where = (
        "local, or dask://HOST:PORT of a Dask scheduler; for a federated chapter also flower-sim (Ray) and "
        "flower://HOST:PORT of a SuperLink"
    )
    parser.add_argument("--engine", type=_engine, default=LOCAL, help=where)
    many = "worker processes (0: in the notebook; default: 0 at the reduced scale, else one a core)"
    parser.add_argument("--jobs", type=_jobs, help=many)


def _engine(text: str) -> Engine:
    try:
        return Engine.parse(text)
    except EngineError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _jobs(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of workers, 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of chapters, 1 or more")
    return int(text)


def _slugs(text: str) -> list[str]:
    return [slug for slug in text.split(",") if slug]


def _list(args: argparse.Namespace) -> int:
    broken = 0
    for chapter in chapters():
        try:
            print(f"{chapter.slug:24} {_state(chapter):22} {chapter.paper.title}")
        except ValueError as error:  # a notebook or YAML that cannot be read; the others can
            print(f"{chapter.slug:24} broken: {error}", file=sys.stderr)
            broken += 1
    return 1 if broken else 0


def _state(chapter: Chapter) -> str:
    """How many of the paper's own claims the run at reduced scale reproduced."""
    run = find(chapter, chapter.spec(chapter.resolve()))
    if run is None:
        return "not run yet, or failed"
    papers = {claim.id for claim in chapter.paper.claims if claim.source not in OUR_OWN}
    verdicts = [claim["verdict"] for claim in run.record["result"]["claims"] if claim["id"] in papers]
    return f"{verdicts.count('reproduced')} of {len(verdicts)} reproduced"


def _run(args: argparse.Namespace) -> int:
    chapter = Chapter(args.slug)
    settings = chapter.resolve(args.scale, _overrides(args.p, chapter.parameters))
    if args.publish and settings.scale in ("reduced", "exploratory"):
        raise ParameterError(f"--publish keeps the larger named scales; this run is {settings.scale}")
    run = _execute(chapter, chapter.spec(settings, args.engine, args.jobs, args.force))
    for claim in run.record["result"]["claims"]:
        print(tables.line(claim))
    print(f"record: {run.folder / 'record.json'}")
    if args.publish:
        print(f"published: {publish(run, chapter.root)}")
    return 0


def _execute(chapter: Chapter, spec: RunSpec) -> Run:
    """Run with a line before and after, so that a waiting person knows where the time goes."""
    start = time.perf_counter()
    print(f"{chapter.slug} ({spec.settings.scale}) ...", end=" ", file=sys.stderr, flush=True)
    try:
        run = execute(chapter, spec)
    except BaseException:
        print(file=sys.stderr)  # the reason is no part of that line
        raise
    took = "already there" if run.cached else f"{time.perf_counter() - start:.0f} s"
    print(took, file=sys.stderr)
    return run


def _overrides(pairs: Sequence[str], known: Parameters) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ParameterError(f"-p {pair!r}: write NAME=VALUE, for example -p 'seeds=[0,1]'")
        if name in found:
            raise ParameterError(f"-p {name} is given twice; a sweep is a list, for example -p 'seeds=[0,1]'")
        found[name] = known[name].read(value) if name in known else value
    return found


def _parameters(slug: str) -> int:
    chapter = Chapter(slug)
    print(f"{chapter.paper.title}\n\nscales: {', '.join(chapter.paper.scales)}\nparameters (-p NAME=VALUE):")
    for p in chapter.parameters.values():
        print(f"  {p}\n      {p.help}")
        for field in p.record.fields if p.record else ():
            print(f"        {field}\n            {field.help}")
    print("\noptions: `ouikit run --help`")
    return 0


def _check(args: argparse.Namespace) -> int:
    chosen = [Chapter(slug) for slug in args.slug] or chapters()
    found = []
    for chapter in chosen:
        if args.fix:
            notebook.normalise(chapter.path)
        lines = check.problems(chapter)
        if (args.records or args.again) and not lines:
            lines = _record_problems(chapter, args.fix, args.again)
        found += lines
    for line in found:
        print(line, file=sys.stderr)
    print(f"{len(chosen)} chapters checked, {len(found)} problems")
    return 1 if found else 0


def _record_problems(chapter: Chapter, fix: bool, again: bool) -> list[str]:
    from ouikit.lab import derive  # which imports pandas

    found = []
    for folder in derive.committed(chapter):
        try:
            if fix:
                derive.rewrite(chapter, folder)
            else:
                found += derive.problems(chapter, folder, again=again)
        except derive.DerivationError as error:
            found.append(str(error))
    return found


def _new(args: argparse.Namespace) -> int:
    for path in scaffold.write(keys.repo_root(), args.slug, args.title):
        print(path)
    print(f"next: ouikit run {args.slug}; ouikit check {args.slug}; ouikit book")
    return 0


def _book(args: argparse.Namespace) -> int:
    """Publish what is there already, then run what is missing, cheapest chapter first, and publish again."""
    from ouikit.lab.book import publish_book

    if args.engine.federated:
        raise ParameterError(f"the book runs every chapter; --engine {args.engine} is for `ouikit run`")
    root = keys.repo_root()
    html = args.html or root / "build" / "html"
    only = {Chapter(slug, root).slug for slug in args.only}  # an unknown name is an error
    specs = {c: c.spec(c.resolve(), args.engine, args.jobs) for c in chapters(root)}
    folders = {c.slug: run.folder for c, spec in specs.items() if (run := find(c, spec))}
    waiting = [c for c in specs if c.slug not in folders and (not only or c.slug in only)]
    costs = {c: last_cost(c) for c in waiting}
    waiting.sort(key=costs.__getitem__)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves by the way of Ctrl-C
    failed: list[str] = []
    try:
        if waiting:
            site = publish_book(root, list(folders.values()), html)
            print(
                f"{site / 'index.html'}\nreadable now; still to run: {len(waiting)} chapters", file=sys.stderr
            )
            failed = _run_waiting(
                {c: specs[c] for c in waiting}, costs, args.at_once or _chapters_at_once(args), folders,
                lambda: publish_book(root, [*folders.values()], html),
            )  # fmt: skip
        site = publish_book(root, list(folders.values()), html)
    except KeyboardInterrupt:
        there = (
            f"{html / 'index.html'} is whole" if (html / "index.html").exists() else "no site was built yet"
        )
        print(
            f"ouikit: stopped; {there}, {len(folders)} of {len(specs)} chapters have a run; finished cells "
            "are kept, and `ouikit book` goes on from there",
            file=sys.stderr,
        )
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    print(site / "index.html")
    if failed:
        print(f"ouikit: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _chapters_at_once(args: argparse.Namespace) -> int:
    """As many as cores, unless every chapter brings workers or a cluster of its own."""
    return 1 if args.jobs or args.engine != LOCAL else cpu_count()


def _run_waiting(
    specs: Mapping[Chapter, RunSpec],
    costs: Mapping[Chapter, float],
    at_once: int,
    folders: dict[str, Path],
    publish: Callable[[], object],
) -> list[str]:
    """Run chapters; now and then the book shows what has been run in the meantime. Returns what failed."""
    shown, failed = time.perf_counter(), []
    with BookProgress({c.slug: costs[c] for c in specs}) as progress:
        for ended, (chapter, run) in enumerate(execute_all(specs, at_once, progress.begin), 1):
            if isinstance(run, RunError):  # the other chapters go on, and the book shows this one as not run
                progress.say(str(run))
                failed.append(chapter.slug)
                progress.end(chapter.slug, None)
            else:
                folders[chapter.slug] = run.folder
                progress.end(chapter.slug, run.record["result"].get("cpu_seconds"))
            if time.perf_counter() - shown > REFRESH and ended < len(specs):
                publish()
                shown = time.perf_counter()
    return failed


def _bench(args: argparse.Namespace) -> int:
    known = sorted(p.stem for p in BENCHMARKS.glob("[a-z]*.py") if "\ndef run(" in p.read_text())
    root = keys.repo_root()
    for name in args.name:
        if name not in known:
            raise UnknownNameError(f"no benchmark {name!r}; {nearest(name, known)}")
    for name in args.name or known:
        bench = importlib.import_module(f"ouikit.bench.{name}")
        rows = bench.run(progress=print)
        for row in rows:
            interval = (
                f"{tables.number(row['value'])} [{tables.number(row['low'])}, {tables.number(row['high'])}]"
            )
            met = {True: "met", False: "NOT met", None: ""}[row.get("met")]
            print(f"{row['name']:50} {interval:28} {row['unit']:8} {row.get('target') or '':12} {met}")
        code = [f"from ouikit.bench.{name} import run\nrun"]
        made = record.made_by(root, code, keys.source_hash(code)[:16], threads=getattr(bench, "THREADS", 1))
        title = f"{name}-{args.machine}" if args.machine else name
        text = json.dumps(record.finite({"name": title, "rows": rows, "made_by": made}), indent=1)
        for folder in [runs_folder(root) / "bench", *([root / "book/results/bench"] if args.publish else [])]:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{title}.json").write_text(text + "\n")
    return 0
