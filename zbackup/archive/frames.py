"""
Decode zstd of unknown origin in bounded memory.

Four bytes of zstd can stand for 128 KiB, and a frame may announce any size: whoever can write the bucket can make
a megabyte of which a plain decoder makes 32 GiB. Small objects must announce their size and keep to a limit; a
frame of rows is walked block by block (RFC 8878, 3.1.1), so that no step gives more than one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import zstandard

from zbackup.errors import Damaged

# What compressors up to level 19 ask for at most; the library's own limit, 128 MiB, would be touched per worker.
WINDOW_BYTES = 8 << 20

# The records (manifest, index, capture, trailer) and the schema text of real archives have less than 2 MB. So
# large may one be, raw or stored; what writes refuses more, too.
RECORD_BYTES = 32 << 20

# A list of the parts of one table: some 230 bytes each, half a million assets.
LIST_BYTES = 128 << 20

# Frames that are larger come in pieces of whole rows.
PIECE_BYTES = 8 << 20

HINT = "Run `zbackup verify --full` to see what else is damaged, and restore this object from another copy."

# What does not shrink is stored as it is, with a header for each block; zstd gives no more than a 256th on top.
_STORED_MOST = PIECE_BYTES + (PIECE_BYTES >> 8)

_HEADER_MOST, _BLOCK_HEADER, _CHECKSUM = 18, 3, 4
_RLE, _RESERVED = 1, 3


class LongRow(Damaged):
    """A row is longer than the reader was told to bear."""


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
    Decode one frame of a stream: at once where it says that it is small, else at most 128 KiB (one block) at a time.

    `peek` shows up to so many bytes that come next, `take` consumes exactly so many. Raises ZstdError.
    """
    start = peek(_HEADER_MOST)
    parameters = zstandard.get_frame_parameters(start)
    parts = _parts(take, zstandard.frame_header_size(start), checksum=parameters.has_checksum)
    if parameters.content_size <= PIECE_BYTES:
        decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
        yield decoder.decompress(_joined(parts), allow_extra_data=False)
        return
    growing = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()
    yield from map(growing.decompress, parts)
    if not growing.eof:
        raise zstandard.ZstdError("a frame does not end with its last block")


def _parts(take: Callable[[int], bytes], header_bytes: int, *, checksum: bool) -> Iterator[bytes]:
    """Cut out one frame: its header, its blocks, its checksum."""
    yield take(header_bytes)
    last = False
    while not last:
        head = take(_BLOCK_HEADER)
        number = int.from_bytes(head, "little")
        last, kind, size = bool(number & 1), number >> 1 & 3, number >> 3
        if kind == _RESERVED or size > zstandard.BLOCKSIZE_MAX:
            raise zstandard.ZstdError("a block is of no known kind or size")
        yield head + take(1 if kind == _RLE else size)
    if checksum:
        yield take(_CHECKSUM)


def _joined(parts: Iterable[bytes]) -> bytes:
    whole = bytearray()
    for part in parts:
        whole += part
        if len(whole) > _STORED_MOST:
            raise zstandard.ZstdError("a frame has more bytes than its rows can have")
    return bytes(whole)


def pieces(blocks: Iterable[bytes], name: str, row_bytes: int) -> Iterator[bytes]:
    """
    Gather the blocks of a frame into pieces of whole rows; the last one may end within a row.

    Raises LongRow, naming the object, for a row of more than `row_bytes`.
    """
    coming = iter(blocks)
    alone, second = next(coming, None), next(coming, None)
    if second is None:
        # Nearly all frames are decoded in one step; two copies less are a fifth of what reading them costs.
        if alone:
            yield alone
        return
    held, seen = bytearray(alone or b""), 0
    for block in chain((second,), coming):
        held += block
        if len(held) < PIECE_BYTES:
            continue
        end, seen = held.rfind(b"\n", seen) + 1, len(held)
        if end:
            piece = _taken(held, end)
            seen = len(held)
            yield piece
            # It may be one huge row, to be let go before the next one is gathered.
            del piece
        elif len(held) > row_bytes:
            raise LongRow(f"{name}: a row has more than {row_bytes} bytes", hint=HINT)
    if held:
        yield _taken(held, len(held))


def _taken(held: bytearray, end: int) -> bytes:
    with memoryview(held) as view:
        piece = bytes(view[:end])
    del held[:end]
    return piece
