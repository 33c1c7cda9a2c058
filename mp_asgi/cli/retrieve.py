"""`mp-asgi retrieve`: say what is kept of people, here and at Mixpanel."""

import argparse
import json
import sys
from contextlib import closing
from typing import Any

from mp_asgi.erasure.jobs import JobKind
from mp_asgi.erasure.retriever import Finding, Retrieval, Retriever

from .people import (
    FORMAT,
    REAL_TIME,
    Desktop,
    Time,
    add_file,
    ask_status,
    count,
    guard,
    mask,
    open_desktop,
    parse_task_id,
    read_people,
)
from .progress import Progress, make_progress


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "retrieve",
        help="retrieve what is kept of people",
        description="Print what the ledger knows of people, and have Mixpanel collect what it "
        f"knows; a link to that comes when it is done. {FORMAT}",
    )
    add_file(parser)
    parser.add_argument("--wait", action="store_true", help="wait for Mixpanel's links")
    parser.add_argument(
        "--status", type=parse_task_id, metavar="TASK", help="only ask how far a job is"
    )
    parser.add_argument("--reveal", action="store_true", help="print raw IDs, not their hashes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, moment: Time = REAL_TIME) -> int:
    """Do what the arguments say. Return the exit code."""

    def call() -> int:
        if args.status is not None:
            with open_desktop(moment, has_ledger=False) as desktop:
                return ask_status(desktop, JobKind.RETRIEVAL, args.status, as_json=args.json)
        with open_desktop(moment) as desktop, closing(make_progress()) as progress:
            return _retrieve(args, desktop, progress)

    return guard("retrieve", call, as_json=args.json)


def _retrieve(args: argparse.Namespace, desktop: Desktop, progress: Progress) -> int:
    people = read_people(args.file, desktop.reader)
    retriever = Retriever(desktop.reader, desktop.ledger, desktop.api, report=progress.show)
    retrieval = retriever.retrieve(people)
    if args.wait:
        # The tasks first: who gives up waiting can ask for them with --status.
        for job in retrieval.jobs:
            print(f"mp-asgi retrieve: task {job.task_id}", file=sys.stderr)
        retrieval = retriever.wait(retrieval)
    progress.close()
    for problem in retrieval.problems:
        print(f"mp-asgi retrieve: {problem}", file=sys.stderr)
    if args.json:
        print(json.dumps(_to_json(retrieval, is_revealed=args.reveal)))
    else:
        print(_render(retrieval, is_revealed=args.reveal))
    return 1 if retrieval.problems else 0


def _to_json(retrieval: Retrieval, *, is_revealed: bool) -> dict[str, Any]:
    return {
        "kind": "retrieval",
        "people": [
            _finding_to_json(finding, is_revealed=is_revealed) for finding in retrieval.findings
        ],
        "jobs": [
            {
                "task_id": job.task_id,
                "status": job.status.state.value,
                "link": job.status.link,
                "subject": job.subject.value,
                "count": len(job.keys),
            }
            for job in retrieval.jobs
        ],
        "problems": list(retrieval.problems),
    }


def _finding_to_json(finding: Finding, *, is_revealed: bool) -> dict[str, Any]:
    person = finding.person
    content: dict[str, Any] = {"subject": person.subject.value, "key": person.key.hex()}
    if is_revealed:
        content["id"] = person.id
    return {**content, "records": [json.loads(record) for record in finding.records]}


def _render(retrieval: Retrieval, *, is_revealed: bool) -> str:
    lines = []
    for finding in retrieval.findings:
        name = mask(finding.person, is_revealed=is_revealed)
        lines.append(f"{name}: {count(len(finding.records), 'record')} in the ledger")
        lines += [f"  {record}" for record in finding.records]
    for job in retrieval.jobs:
        about = count(len(job.keys), job.subject.value)
        link = job.status.link or f"not ready; ask with --status {job.task_id}"
        lines.append(f"Mixpanel, {about}: {job.status.state.value}, {link}")
    return "\n".join(lines)
