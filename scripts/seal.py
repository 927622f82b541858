"""Encrypts standard input for GitHub: a sealed box for the public key (base64) that is the argument, printed as base64."""

import sys
from base64 import b64decode, b64encode

from nacl.public import PublicKey, SealedBox

print(b64encode(SealedBox(PublicKey(b64decode(sys.argv[1]))).encrypt(sys.stdin.buffer.read())).decode())
