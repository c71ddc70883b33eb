"""``python -m benchmarks``: run all of them; RESULTS.md is rewritten section by section."""

from __future__ import annotations

import importlib
import time

NAMES = ("polling", "importing", "capture", "waiting", "one_image", "batch", "growth", "gallery", "demo")

if __name__ == "__main__":
    for name in NAMES:
        began = time.monotonic()
        importlib.import_module(f"benchmarks.{name}").main()
        print(f"\n({name}: {time.monotonic() - began:.0f} s)\n", flush=True)
