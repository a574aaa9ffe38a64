"""Corrects the compression cases of kosoku 0.1.0, groups 12 and 13. Usage: correct.py CASES_DIRECTORY [MESSAGES]

Each correction replaces text that occurs exactly once. In another version of kosoku, the text may differ, and this script fails.

1. kosoku passes the payload of an uncompressed message to a case as `str`: text as it is, binary as latin-1. The cases hash
   it as `bytes` and end with a TypeError. A server may send any message uncompressed (RFC 7692 section 6).
2. When a case receives a ping, it sends its close frame too soon. A server may ping at any time (RFC 6455 section 5.5.2).
   `examples/echo` sends a ping if a case lasts longer than half of the ping period of `examples/echo`.

MESSAGES is the number of messages of each case, in place of 1000.
"""

import sys
from pathlib import Path

CORRECTIONS = [
    (
        "def onMessage(self, msg, binary):\n",
        "def onMessage(self, msg, binary):\n"
        "   if isinstance(msg, str):\n"
        '      msg = msg.encode("latin-1" if binary else "utf-8")\n',
    ),
    ("def sendOne(self):\n", "def onPing(self, payload):\n   pass\n\n\ndef sendOne(self):\n"),
]
# The first text is a line that occurs twice in the file with the cases, once in each of its two generators of
# cases. The second text replaces this line.
METHOD = ('                 "onMessage": onMessage,\n', '                 "onMessage": onMessage,\n                 "onPing": onPing,\n')


def main(directory, messages="1000"):
    path = Path(directory) / "case12_x_x.py"
    source = path.read_text(encoding="utf-8")
    for old, new in CORRECTIONS:
        source = replace(source, old, new, 1)
    source = replace(source, *METHOD, 2)
    source = replace(source, " 1000,", f" {int(messages)},", 18)
    path.write_text(source, encoding="utf-8")


def replace(source, old, new, times):
    if source.count(old) != times:
        raise SystemExit(f"correct.py: {old!r} occurs {source.count(old)} times, expected {times}: another version of kosoku?")
    return source.replace(old, new)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in (2, 3) else __doc__)
