"""Encrypts standard input for GitHub and prints it as base64: a sealed box for the public key (base64) in the argument."""

import sys
from base64 import b64decode, b64encode

from nacl.public import PublicKey, SealedBox

print(b64encode(SealedBox(PublicKey(b64decode(sys.argv[1]))).encrypt(sys.stdin.buffer.read())).decode())
