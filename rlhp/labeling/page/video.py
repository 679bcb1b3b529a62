"""What kind of video some bytes are, by their first few."""

from __future__ import annotations


def media_type(data: bytes) -> str:
    """WebM, MP4 or PNG (an animated one); anything else is a download, which no browser runs."""
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm"
    if data[4:8] == b"ftyp":
        return "video/mp4"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    return "application/octet-stream"
