"""Downloads: to a temporary name, gone on with after an interruption, verified, and then renamed."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from vaestudy.files import locked, writing

SECONDS = 60  # without a byte after which a server is given up


def fetch(addresses: Sequence[str], md5: str, target: Path) -> None:
    """A published file from the first of its addresses that answers; nothing happens if it stands there already.

    Raises:
        OSError: none of them answers, or what came is not the published file.
        InputError: the folder cannot be written.
    """
    partial = target.with_name(f".{target.name}.part")
    with ExitStack() as stack:
        with writing(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(target.with_name(f".{target.name}.lock"), f"fetches {target}"))
        if target.exists():
            return
        for address in addresses:
            try:
                _append(address, partial)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if address == addresses[-1]:
                    raise
        with partial.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != md5:
            partial.unlink()
            raise OSError(f"what {address} sent is not the published {target.name}")
        os.replace(partial, target)


def _append(address: str, partial: Path) -> None:
    """What an address holds beyond what is there; all of it where a server cannot begin in the middle."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    # The addresses are written down in torchvision, all of them with http or https.
    request = urllib.request.Request(address, headers=headers)  # noqa: S310
    try:
        reply = urllib.request.urlopen(request, timeout=SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing beyond
            return
        raise
    more = reply.status == 206
    size = int(reply.headers.get("Content-Length", 0)) + have * more
    label = address.rpartition("/")[2]
    bar = tqdm(desc=label, total=size or None, initial=have * more, disable=None, unit="B", unit_scale=True)
    with bar, reply, writing(partial), partial.open("ab" if more else "wb") as file:
        while piece := reply.read(1 << 16):
            bar.update(file.write(piece))
    if partial.stat().st_size < size:
        raise ConnectionError(f"{address} broke off after {partial.stat().st_size:,} of {size:,} bytes")
