"""``python -m benchmarks``: run all of them; RESULTS.md is rewritten section by section."""

from __future__ import annotations

import importlib
import importlib.util
import time

NAMES = ("polling", "importing", "capture", "waiting", "one_image")
NEED_BATCH = ("batch", "growth")

if __name__ == "__main__":
    has_batch = importlib.util.find_spec("airflow_provider_flux.operators.batch") is not None
    for name in (*NAMES, *(NEED_BATCH if has_batch else ())):
        began = time.monotonic()
        importlib.import_module(f"benchmarks.{name}").main()
        print(f"\n({name}: {time.monotonic() - began:.0f} s)\n", flush=True)
