"""AES as the rest of the protocol needs it, from whichever library the interpreter brings.

MicroPython has ECB and CBC only (`cryptolib`), so everything above is built from these two; on CPython the
same two come from `cryptography`. Lengths are multiples of 16 bytes, keys 16 bytes (AES-128, FIPS 197).
"""

try:
    from cryptolib import aes as _aes  # type: ignore[import-not-found, unused-ignore]

    _ZERO = bytes(16)

    def ecb(key: bytes, data: bytes) -> bytes:
        """Encrypt whole blocks, each by itself."""
        return bytes(_aes(key, 1).encrypt(data))

    def ecb_decrypt(key: bytes, data: bytes) -> bytes:
        """Decrypt whole blocks, each by itself."""
        return bytes(_aes(key, 1).decrypt(data))

    def cbc(key: bytes, data: bytes) -> bytes:
        """Encrypt whole blocks chained, from an initialisation vector of zeros."""
        return bytes(_aes(key, 2, _ZERO).encrypt(data))

except ImportError:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    _ZERO = bytes(16)

    def ecb(key: bytes, data: bytes) -> bytes:
        """Encrypt whole blocks, each by itself."""
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(data)

    def ecb_decrypt(key: bytes, data: bytes) -> bytes:
        """Decrypt whole blocks, each by itself."""
        return Cipher(algorithms.AES(key), modes.ECB()).decryptor().update(data)

    def cbc(key: bytes, data: bytes) -> bytes:
        """Encrypt whole blocks chained, from an initialisation vector of zeros."""
        return Cipher(algorithms.AES(key), modes.CBC(_ZERO)).encryptor().update(data)
