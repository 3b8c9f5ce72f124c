"""A key in every encoding in which a server might repeat it."""

import base64
import json
from urllib.parse import quote


def encodings(key):
    """Name -> the key in that encoding, in all sorts of company."""
    raw = key.encode()
    found = {
        "raw": key,
        "upper": key.upper(),
        "title": key.title(),
        "header": f"b'Authorization: Bearer {key}'",
        "json": json.dumps({"x": f"Bearer {key}"}),
        "json twice": json.dumps(json.dumps(key)),
        "json, slashes": json.dumps(key, ensure_ascii=False).replace("/", "\\/"),
        "url": quote(key, safe=""),
        "url, all": "".join(f"%{b:02X}" for b in raw),
        "url twice": quote(quote(key, safe=""), safe=""),
        "url, some": "".join(f"%{b:02x}" if i % 3 == 0 or b == 37 else chr(b) for i, b in enumerate(raw)),
        "hex": raw.hex(),
        "HEX": raw.hex().upper(),
        "hex with colons": raw.hex(":"),
        "dump": raw.hex(" ", 2),
        "C": "".join(f"\\x{b:02x}" for b in raw),
        "C array": ", ".join(f"0x{b:02X}" for b in raw),
        "quoted-printable": "".join(f"={b:02X}" for b in raw),
        "over lines": key[:7] + "\n   " + key[7:],
        "NUL between": "\x00".join(key),
    }
    if key.isascii():
        found["json, all escaped"] = "".join(f"\\u{ord(c):04x}" for c in key)
        found["html"] = "".join(f"&#{ord(c)};" for c in key)
        found["html, hex"] = "".join(f"&#x{ord(c):X};" for c in key)
    for before in ("", "B", "Be", "Bearer ", "user:", "any name:"):
        for after in ("", "\n", "ab"):
            packed = base64.b64encode(f"{before}{key}{after}".encode())
            text, name = packed.decode(), f"{before!r}..{after!r}"
            found |= {
                f"base64 of {name}": text,
                f"base64 for URLs {name}": text.translate(str.maketrans("+/", "-_")).rstrip("="),
                f"base64 in lines {name}": "\n".join(text[i : i + 9] for i in range(0, len(packed), 9)),
                f"base64 twice {name}": base64.b64encode(packed).decode(),
                f"hex of base64 {name}": packed.hex(),
            }  # fmt: skip
    return found
