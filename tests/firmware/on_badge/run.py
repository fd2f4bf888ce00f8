"""Runs the checks of one file inside MicroPython: `micropython run.py FILE`. Says `ok name` or `bad name` for each."""

import sys

sys.path.insert(0, "tests/firmware/on_badge")
sys.path.insert(0, "tests/firmware/on_badge/fakes")
sys.path.insert(0, ".")

name = sys.argv[1]
module = __import__(name)
for test in sorted(dir(module)):
    if test.startswith("test_"):
        try:
            getattr(module, test)()
            print("ok", test)
        except Exception as error:
            print("bad", test)
            sys.print_exception(error)
