"""The bytes of a packed part, there and back: zstd, then AES-256-CBC, as SWUpdate undoes them.

Compressing comes before encrypting. Both ways work on pieces, so memory does not grow with the file. Unpacking is
bounded by the size that the signed description promises: a part that would give one byte more, or one byte less, is
refused before that byte is handed on, and a frame that asks for a large window is refused before the window exists.
The same plain bytes, key and vector give the same packed bytes with the same zstd library (``codec_name``). Opens no
file, starts no thread, verifies no digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from nwmctl.domain.packing import Compression
from nwmctl.errors import PackedDataError, PackedSizeError, PayloadKeyError
from nwmctl.formats.cpio import CHUNK

Buffer = bytes | bytearray | memoryview

LEVEL = 1
"""zstd's level: weights hardly compress further at higher ones, and cost a hundred times more there."""
MAX_WINDOW = 8 << 20
"""The most memory that a frame may ask for; level 1 asks for 512 KiB."""
KEY_BYTES, IV_BYTES = 32, 16


@dataclass(frozen=True, slots=True)
class Cipher:
    """A key and the vector of one part."""

    key: bytes = field(repr=False)
    iv: bytes

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES or len(self.iv) != IV_BYTES:
            raise ValueError(f"AES-256-CBC takes a key of {KEY_BYTES} bytes and a vector of {IV_BYTES}")


class Packer(Protocol):
    """Takes plain bytes piece by piece and gives packed ones."""

    def update(self, data: Buffer) -> Buffer:
        """The packed bytes that are ready. They hold until the next call, and as long as ``data`` does."""
        ...

    def finish(self) -> bytes:
        """The rest. Nothing may be given afterwards."""
        ...


def codec_name(compression: Compression) -> str:
    """What decides the packed bytes beside the plain ones: the codec, its level and its library's version."""
    match compression:
        case Compression.NONE:
            return "none"
        case Compression.ZSTD:
            import zstandard

            return f"zstd-{LEVEL} " + ".".join(str(number) for number in zstandard.ZSTD_VERSION)


def packer(compression: Compression, size: int, cipher: Cipher | None) -> Packer:
    """A packer for exactly ``size`` plain bytes."""
    inner: Packer = _Zstd(size) if compression is Compression.ZSTD else _Plain()
    return _Encrypted(inner, cipher) if cipher else inner


def unpacked(chunks: Iterable[bytes], compression: Compression, size: int, cipher: Cipher | None) -> Iterator[bytes]:
    """The ``size`` plain bytes of a part, at most ``CHUNK`` at a time.

    Raises PackedDataError for bytes that no packer wrote (a wrong key gives such, too), PackedSizeError for more or
    fewer than ``size``.
    """
    pieces = iter(chunks)
    if cipher:
        pieces = _decrypted(pieces, cipher)
    if compression is Compression.ZSTD:
        pieces = _decompressed(pieces, size)
    left = size
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise _size(size, "more")
        yield piece
    if left:
        raise _size(size, f"{left} fewer")


class _Plain:
    def update(self, data: Buffer) -> Buffer:
        return data

    def finish(self) -> bytes:
        return b""


class _Zstd:
    def __init__(self, size: int) -> None:
        import zstandard

        self._frame = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compressobj(size=size)

    def update(self, data: Buffer) -> bytes:
        packed: bytes = self._frame.compress(data)
        return packed

    def finish(self) -> bytes:
        packed: bytes = self._frame.flush()
        return packed


class _Encrypted:
    """Counts instead of padding as it goes (PKCS 7), and keeps one buffer: either would copy every byte once more."""

    def __init__(self, inner: Packer, cipher: Cipher) -> None:
        self._inner = inner
        self._aes = _aes(cipher).encryptor()
        self._taken = 0
        self._room = bytearray()

    def update(self, data: Buffer) -> Buffer:
        ready = self._inner.update(data)
        self._taken += len(ready)
        if len(self._room) < len(ready) + IV_BYTES:
            self._room = bytearray(len(ready) + IV_BYTES)
        size: int = self._aes.update_into(ready, self._room)
        return memoryview(self._room)[:size]

    def finish(self) -> bytes:
        last = self._inner.finish()
        missing = IV_BYTES - (self._taken + len(last)) % IV_BYTES
        return bytes(self._aes.update(last + bytes([missing]) * missing) + self._aes.finalize())


def _aes(cipher: Cipher) -> Any:
    from cryptography.hazmat.primitives.ciphers import Cipher as Aes
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import CBC

    return Aes(AES256(cipher.key), CBC(cipher.iv))


def _decrypted(chunks: Iterator[bytes], cipher: Cipher) -> Iterator[bytes]:
    from cryptography.hazmat.primitives.padding import PKCS7

    aes, padding = _aes(cipher).decryptor(), PKCS7(128).unpadder()
    try:
        for chunk in chunks:
            yield padding.update(aes.update(chunk))
        yield padding.update(aes.finalize()) + padding.finalize()
    except ValueError as problem:
        raise _damaged("it was not encrypted with this key, or is cut off") from problem


def _decompressed(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    import zstandard

    feed: Any = _Feed(chunks)
    context = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    try:
        reader = context.stream_reader(feed, read_size=CHUNK // 8, read_across_frames=True)
        left = size
        while left and (piece := reader.read(min(CHUNK, left))):
            left -= len(piece)
            yield piece
        if reader.read(1):
            raise _size(size, "more")
    except (zstandard.ZstdError, MemoryError) as problem:
        raise _damaged(str(problem) or "it asks for too much memory") from problem


class _Feed:
    """A stream over pieces."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, most: int) -> bytes:
        while not self._rest:
            piece = next(self._chunks, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        data, self._rest = self._rest[:most], self._rest[most:]
        return bytes(data)


def key_needed(name: str) -> PayloadKeyError:
    """The refusal to read an encrypted file without a key."""
    return PayloadKeyError(
        f"'{name}' is encrypted and no key was given",
        why="the bundle's payloads are encrypted for the vehicles that hold the key",
        next="name the key file with --aes-key file:PATH",
    )


def _size(size: int, how: str) -> PackedSizeError:
    return PackedSizeError(
        "a packed file has another size than was signed",
        why=f"it holds {how} than the {size} bytes of the signed description",
        next="fetch the bundle again; if it stays so, build it again",
    )


def _damaged(why: str) -> PackedDataError:
    return PackedDataError(
        "a packed file cannot be unpacked", why=why, next="fetch the bundle again; if it stays so, build it again"
    )
