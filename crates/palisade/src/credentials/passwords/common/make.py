"""Makes common.bin out of a list of passwords, the commonest first: make.py LIST > common.bin

Taken are the first 100,000 and, of the others, those that are long enough for the default minimum of 15
characters. Each becomes the first five bytes of the SHA-256 of its folded form (NFKC, lower case); the table
is sorted. One password in eleven million that isn't in it looks as if it were.
"""

import hashlib
import sys
import unicodedata

FIRST, LONG, BYTES = 100_000, 15, 5

table = set()
with open(sys.argv[1], encoding="utf-8", errors="replace") as lines:
    for number, line in enumerate(lines):
        password = line.rstrip("\r\n")
        if number < FIRST or len(password) >= LONG:
            folded = unicodedata.normalize("NFKC", password).lower()
            table.add(hashlib.sha256(folded.encode()).digest()[:BYTES])
sys.stdout.buffer.write(b"".join(sorted(table)))
