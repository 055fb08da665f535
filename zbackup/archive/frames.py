"""
Decode zstd of unknown origin in bounded memory.

Four bytes of zstd can stand for 128 KiB, and a frame may announce any size: whoever can write the bucket can make
a megabyte of which a plain decoder makes 32 GiB. Small objects must announce their size and keep to a limit; a
frame of rows is walked block by block (RFC 8878, 3.1.1), so that no step gives more than one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import zstandard

# What compressors up to level 19 ask for at most; the library's own limit, 128 MiB, would be touched per worker.
WINDOW_BYTES = 8 << 20

# The records (manifest, index, capture, trailer) and the schema text of real archives have less than 2 MB. So
# large may one be, raw or stored; what writes refuses more, too.
RECORD_BYTES = 32 << 20

# A list of the parts of one table: some 230 bytes each, half a million assets.
LIST_BYTES = 128 << 20

# A frame of events has 4 MiB and ends where created_at changes: more only where one push is larger.
FRAME_MOST_BYTES = 128 << 20

_HEADER_MOST, _BLOCK_HEADER, _CHECKSUM = 18, 3, 4
_RLE, _RESERVED = 1, 3


def unpack(body: bytes, most: int) -> bytes:
    """Decompress one whole frame of announced size. Raises ZstdError when it is of more than `most` bytes."""
    size = zstandard.frame_content_size(body)
    if size < 0:
        raise zstandard.ZstdError("it does not say how large it is")
    if size > most:
        raise zstandard.ZstdError(f"it is said to have {size} bytes, {most} is the most")
    return zstandard.ZstdDecompressor().decompress(body)


def decoded(peek: Callable[[int], bytes], take: Callable[[int], bytes]) -> Iterator[bytes]:
    """
    Decode one frame of a stream, at most 128 KiB (one block) at a time.

    `peek` shows up to so many bytes that come next, `take` consumes exactly so many. Raises ZstdError.
    """
    start = peek(_HEADER_MOST)
    checksum = zstandard.get_frame_parameters(start).has_checksum
    decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()
    yield decoder.decompress(take(zstandard.frame_header_size(start)))
    last = False
    while not last:
        head = take(_BLOCK_HEADER)
        number = int.from_bytes(head, "little")
        last, kind, size = bool(number & 1), number >> 1 & 3, number >> 3
        if kind == _RESERVED or size > zstandard.BLOCKSIZE_MAX:
            raise zstandard.ZstdError("a block is of no known kind or size")
        yield decoder.decompress(head + take(1 if kind == _RLE else size))
    if checksum:
        yield decoder.decompress(take(_CHECKSUM))
    if not decoder.eof:
        raise zstandard.ZstdError("a frame does not end with its last block")
