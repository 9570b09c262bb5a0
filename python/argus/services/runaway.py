"""The drill's patient: a real process that loops and spends until something stops it. Run: python -m argus.services.runaway"""

from __future__ import annotations

import subprocess
import sys
import time

from argus.wire.emitter import Emitter

_PACE_S = 0.02
_COST_NUSD = 50_000_000
_MAX_CALLS = 1500  # ends by itself should nothing stop it


def main() -> int:
    """Emit the same tool call with the same result and its cost, over and over, with a helper process beside it."""
    helper = subprocess.Popen(["sleep", "60"])
    try:
        with Emitter(source="drill-agent", agent="drill") as emitter:
            emitter.emit("task_started", task="drill")
            for _ in range(_MAX_CALLS):
                emitter.emit("tool_called", task="drill", tool="search", args_hash="aa", result_hash="bb", ok=True)
                emitter.emit(
                    "token_cost_logged",
                    task="drill",
                    model="drill-model",
                    input_tokens=1000,
                    output_tokens=10,
                    cost_nusd=_COST_NUSD,
                )
                time.sleep(_PACE_S)
    finally:
        helper.kill()
        helper.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
