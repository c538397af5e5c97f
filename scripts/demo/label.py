"""Implicit AIGC labels for test material: writes one, or makes the remains of one.

What `leave_residue` does to a file is what careless tools do: the box is no
longer found by readers, but its bytes are still there. It exists to make the
file that the label-strip detector is shown; the program has no such command.
"""

import json
import struct
import zlib

CODE = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def provider():
    """A provider code of the right form that no one can own: its region is 000000."""
    body = "91000000MA0000000"
    total = sum(CODE.index(c) * pow(3, i, 31) for i, c in enumerate(body))
    return "0011" + body + CODE[(31 - total % 31) % 31] + "00000"


def content(produce_id):
    return json.dumps({"Label": "1", "ContentProducer": provider(), "ProduceID": produce_id,
                       "ReservedCode1": "", "ContentPropagator": "", "PropagateID": "",
                       "ReservedCode2": ""}, separators=(",", ":"))


def leave_residue(mp4):
    """Renames moov.udta to `free`, in place; no other byte changes."""
    with open(mp4, "r+b") as f:
        data = f.read()
        at = None
        for start, end, kind in boxes(data, 0, len(data)):
            if kind == b"moov":
                for inner, inner_end, inner_kind in boxes(data, start, end):
                    if inner_kind == b"udta" and b"AIGC" in data[inner:inner_end]:
                        at = inner - 4
        if at is None:
            raise SystemExit(f"{mp4}: no moov.udta with a label in it")
        f.seek(at)
        f.write(b"free")


def boxes(data, start, end):
    """(start of the payload, end, kind) of each box between two offsets; 32-bit sizes only."""
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start:start + 8])
        if size < 8:
            raise SystemExit("a box size this script does not know")
        yield start + 8, start + size, kind
        start += size


def label_png(data, text):
    """The PNG with a tEXt chunk `AIGC` behind IHDR."""
    payload = b"tEXt" + b"AIGC\0" + text.encode("ascii")
    chunk = struct.pack(">I", len(payload) - 4) + payload + struct.pack(">I", zlib.crc32(payload))
    return data[:33] + chunk + data[33:]
