"""A command run to its end: bad input and full disks are one message and an exit code, not a traceback."""

from __future__ import annotations

import errno
import gc
import sys

from study.commands.cli import app
from study.errors import InputError, WritingError

INTERRUPTED = 130  # what typer makes of Ctrl-C, as shells do


def main() -> None:
    """Run a command; bad input ends with one message and exit code 2, what cannot be written with one and 1."""
    try:
        app()
    except InputError as error:
        if "--debug" in sys.argv:
            raise
        print(f"scanvi-study: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # Some libraries write past `files`; a full disk is one all the same.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if "--debug" in sys.argv or not (full or isinstance(error, WritingError)):
            raise
        print(f"scanvi-study: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("scanvi-study: interrupted; what is finished is kept. The same command goes on.", file=sys.stderr)
        raise
    finally:
        gc.freeze()  # Python would search all that was imported for garbage when it ends, for more than a second
