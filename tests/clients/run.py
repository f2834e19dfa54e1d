"""Clients that nobody here wrote, against the real binary.

Usage: run.py PATH_OF_PALISADE [WORD]. Starts servers on free loopback ports, SQLite and PostgreSQL, and ends
them. With WORD, only the checks whose names hold it.
"""

import importlib
import sys
import traceback

from server import CHECKS


def main():
    for module in ["tokens", "factors", "verifying", "operating", "mailing", "described", "readme", "browser", "pages"]:
        importlib.import_module(module)
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    chosen = [function for function in CHECKS if word in function.__name__]
    failed = 0
    for function in chosen:
        try:
            function()
            print(f"ok      {function.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {function.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not chosen else 0)


if __name__ == "__main__":
    main()
