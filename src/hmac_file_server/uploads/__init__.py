"""Uploads: what happens between a permission and a published file. Knows no HTTP."""

from hmac_file_server.stores.contract import StoreError, StoreFull, TooManySessions
from hmac_file_server.uploads.engine import Engine, Order, Rules, label, mismatch
from hmac_file_server.uploads.errors import UploadRefused
from hmac_file_server.uploads.lease import Check, Lease
from hmac_file_server.uploads.receipt import Progress, Receipt
from hmac_file_server.uploads.single import EXISTS, Plan, Result, SingleUpload, Stored
from hmac_file_server.uploads.states import State
from hmac_file_server.uploads.upload import Failure, Upload

__all__ = [
    "EXISTS",
    "Check",
    "Engine",
    "Failure",
    "Lease",
    "Order",
    "Plan",
    "Progress",
    "Receipt",
    "Result",
    "Rules",
    "SingleUpload",
    "State",
    "StoreError",
    "StoreFull",
    "Stored",
    "TooManySessions",
    "Upload",
    "UploadRefused",
    "label",
    "mismatch",
]
