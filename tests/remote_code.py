"""What Chrome's store takes for code from elsewhere, and what no extension of ours asks for."""

from __future__ import annotations

import re

REMOTE_CODE = re.compile(
    r"""<(?:script|link|iframe|img)\b[^>]*\b(?:src|href)\s*=\s*["']?(?:https?:)?//
    | \b(?:import|from)\s*\(?\s*["'`](?:https?:)?//
    | \b(?:importScripts|Worker)\s*\(\s*["'`](?:https?:)?//
    | @import | \burl\(\s*["']?(?:https?:)?//
    | <all_urls>""",
    re.VERBOSE | re.IGNORECASE,
)
