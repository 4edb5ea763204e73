"""Run phonon flows that ``phononbench confirm --write DIR`` has written, one after the other.

    python scripts/run_flows.py DIR

For the environment of the DFT code, which needs atomate2 and not this package. Outputs go to jobflow's store, as its
settings (``JOBFLOW_CONFIG_FILE``) say; what is there already is not computed again. Each flow has a folder of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jobflow import SETTINGS, Flow, run_locally


def main() -> None:
    """Run every flow of a folder whose last job has no output yet."""
    store = SETTINGS.JOB_STORE
    store.connect()
    failed = []
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        flow: Flow = Flow.from_dict(json.loads(path.read_text()))  # type: ignore[assignment]
        if store.query_one({"uuid": flow.output.uuid}, ["uuid"]) is not None:
            print(f"{path.name}: is there")
            continue
        responses = run_locally(flow, store=store, root_dir=path.with_suffix(""), create_folders=True)
        done = flow.output.uuid in responses
        print(f"{path.name}: {'done' if done else 'failed'}", flush=True)
        failed += [] if done else [path.name]
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
