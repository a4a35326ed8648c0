"""Downloads: to a temporary name, gone on with after an interruption, verified, and then renamed."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib import error, request

from tqdm import tqdm

from vaestudy.files import digest_of, locked, writing


def fetch(addresses: Sequence[str], md5: str, target: Path) -> None:
    """A published file from the first of its addresses that answers; nothing happens if it stands there already.

    OSError where none of them answers or what came is another file, InputError where the folder cannot be written.
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
            except OSError:
                if address == addresses[-1]:
                    raise
        if digest_of(partial, "md5") != md5:
            partial.unlink()
            raise OSError(f"what {address} sent is not the published {target.name}")
        partial.replace(target)


def _append(address: str, partial: Path) -> None:
    """What an address holds beyond what is there; all of it where a server cannot begin in the middle."""
    have = partial.stat().st_size if partial.exists() else 0
    # The addresses are written down in torchvision, all of them with http or https.
    asked = request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        reply = request.urlopen(asked, timeout=60)  # noqa: S310 - seconds without a byte
    except error.HTTPError as refusal:
        if refusal.code == 416:  # there is nothing beyond
            return
        raise
    kept = have if reply.status == 206 else 0
    size = int(reply.headers.get("Content-Length", 0)) + kept
    bar = tqdm(desc=Path(address).name, total=size or None, initial=kept, disable=None, unit="B", unit_scale=True)
    with bar, reply, writing(partial), partial.open("ab" if kept else "wb") as file:
        while piece := reply.read(1 << 16):
            bar.update(file.write(piece))
    if partial.stat().st_size < size:
        raise ConnectionError(f"{address} broke off after {partial.stat().st_size:,} of {size:,} bytes")
