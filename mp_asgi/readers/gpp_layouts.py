"""Know where the opt-outs stand in each US section of a GPP string. Facts, no code.

IAB Tech Lab, Global Privacy Platform, "Sections" (one page a state): six bits of version, then
fields of two bits up to the last one named here.
"""

from typing import NamedTuple

VERSION_BITS = 6


class UsLayout(NamedTuple):
    """One section.

    Attributes:
        name: As in the specification.
        sale: Which field after the version is SaleOptOut, from 0.
        targeted: Likewise TargetedAdvertisingOptOut; None where there is no such field.
        sharing: Likewise SharingOptOut.
        has_gpc: Its subsections have a type, and that of type 1 is the GPC signal. Elsewhere
            they are other fields, without a type.
        versions: Those whose first fields stand so.
    """

    name: str
    sale: int
    targeted: int | None
    sharing: int | None = None
    has_gpc: bool = True
    versions: frozenset[int] = frozenset({1})


US_LAYOUTS = {
    7: UsLayout("usnat", 6, 8, 7, versions=frozenset({1, 2})),
    8: UsLayout("usca", 3, None, 4),
    9: UsLayout("usva", 3, 4, has_gpc=False),
    10: UsLayout("usco", 3, 4),
    11: UsLayout("usut", 4, 5, has_gpc=False),
    12: UsLayout("usct", 3, 4),
    13: UsLayout("usfl", 3, 4, has_gpc=False),
    14: UsLayout("usmt", 3, 4),
    15: UsLayout("usor", 3, 4),
    16: UsLayout("ustx", 3, 4),
    17: UsLayout("usde", 3, 4),
    18: UsLayout("usia", 4, 5),
    19: UsLayout("usne", 3, 4),
    20: UsLayout("usnh", 3, 4),
    21: UsLayout("usnj", 3, 4),
    22: UsLayout("ustn", 3, 4),
    23: UsLayout("usmn", 3, 4),
    24: UsLayout("usmd", 5, 6),
    25: UsLayout("usin", 5, 6, has_gpc=False),
    26: UsLayout("usky", 5, 6, has_gpc=False),
    27: UsLayout("usri", 5, 6, has_gpc=False),
}
