"""Turn the text of IAB strings into bits, six a character. No field has a name here."""

from binascii import a2b_base64


def read_bits(text: str) -> str:
    """Answer the bits as `0` and `1`, the first one first.

    Any length is read: writers fill up to six bits or to eight, and none writes `=`.

    Raises:
        ValueError: A character is not of base64url (RFC 4648 section 5).
    """
    if "+" in text or "/" in text or "=" in text:
        raise ValueError("+, / and = are of base64, not of base64url")
    standard = text.replace("-", "+").replace("_", "/")
    octets = a2b_base64(standard + "AAA"[: -len(text) % 4], strict_mode=True)
    # A leading one keeps the zeros behind it.
    return bin(int.from_bytes(b"\1" + octets))[3 : 3 + 6 * len(text)]
