"""One's own pictures: from a folder, an archive on the web, or S3, into data/photos.

    data/photos/train, valid   if the pictures came in two folders of these names
    data/photos/unsplit        else: the patch index decides by the content of each picture

Files keep their bytes and their names below these folders. Broken pictures are taken too: the patch index names them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from loupe.datasets.archive import is_picture, unpack
from loupe.datasets.fetch import RemoteFile, fetch, require_space
from loupe.errors import InputError
from loupe.imaging.files import find_images
from loupe.names import leads_out, safe_name

SPLITS = ("train", "valid")
UNSPLIT = "unsplit"
Say = Callable[[str], None]


class OwnPicturesError(InputError):
    """Pictures that cannot be taken; the message names the folder or address, and what to do."""


def take_folder(source: Path, folder: Path, photos: Path, say: Say = print) -> list[Path]:
    """Copy the pictures in `source` and below into `folder`.

    Copies, not hard links: DVC replaces a link by its own copy when it stores the output, and with `cache.type
    hardlink` it would make the originals read-only.

    Args:
        source: the user's folder.
        folder: receives the splits; temporary.
        photos: where `folder` will end up; neither may lie in the other.
        say: receives what was left out.

    Returns:
        The files written.

    Raises:
        OwnPicturesError: there is no such folder, no picture in it, one of the two split folders without the other, or
            a link out of it. UnsafeNameError: a name that cannot be written. FetchError: too little room.
    """
    root, out = source.resolve(), photos.resolve()
    if not source.is_dir():
        raise OwnPicturesError(f"{source}: no such folder; mend photos.path (relative to the project's root folder)")
    if out.is_relative_to(root) or root.is_relative_to(out):
        raise OwnPicturesError(f"{source}: holds {photos}, or lies in it; keep your pictures in a folder of their own")
    for path in source.rglob("*"):
        if path.is_symlink() and leads_out(path, root):
            raise OwnPicturesError(f"{path}: refused: a link out of the folder; put the pictures themselves there")
    files = {safe_name(path.relative_to(source).as_posix(), source): path for path in find_images(source)}
    places = arrange(files, str(source), say)
    require_space([(folder, sum(files[name].stat().st_size for name in places))])
    for name, place in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], folder / place)
    return [folder / place for place in places.values()]


def take_url(url: str, folder: Path, cache: Path, say: Say = print) -> list[Path]:
    """Bring pictures from the web or S3 into `folder`.

    Args:
        url: `https://...` or `http://...` of one zip or tar archive, which is kept in `cache`; or `s3://BUCKET/PREFIX`.
        folder: receives the splits; temporary.
        cache: for what is downloaded.
        say: receives progress, retries and what was left out.

    Returns:
        The files written.

    Raises:
        FetchError, ArchiveError, OwnPicturesError: it cannot be had, is refused, or holds no picture.
    """
    raw = folder / ".raw"
    raw.mkdir()
    if url.startswith("s3://"):
        names = _copy_s3(url, raw)
    else:
        parts = urlsplit(url)
        key = hashlib.sha256(url.encode()).hexdigest()[:12]
        name = f"{key}-{PurePosixPath(parts.path).name[-80:] or 'archive'}"
        names = unpack(fetch(RemoteFile(name, (url,)), cache, say=say), raw)
    above = _common_folder(names)
    places = arrange([name.removeprefix(above) for name in names], url, say)
    for name, place in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (raw / (above + name)).rename(folder / place)
    shutil.rmtree(raw)
    return [folder / place for place in places.values()]


def arrange(names: Iterable[str], origin: str, say: Say) -> dict[str, str]:
    """Where each picture goes below data/photos, by its path at `origin`.

    Raises:
        OwnPicturesError: there are no pictures, or only one of the folders train and valid.
    """
    names = list(names)
    tops = {name.partition("/")[0] for name in names if "/" in name}
    given = [split for split in SPLITS if split in tops]
    if not names:
        raise OwnPicturesError(f"{origin}: no picture there")
    if not given:
        say(f"{origin}: no folders train and valid there: the content of each picture decides its split")
        return {name: f"{UNSPLIT}/{name}" for name in names}
    if len(given) == 1:
        missing = next(split for split in SPLITS if split not in given)
        raise OwnPicturesError(
            f"{origin}: has pictures in {given[0]}/ but none in {missing}/; add them, or rename {given[0]}/ to let the "
            "content of each picture decide"
        )
    places = {name: name for name in names if name.partition("/")[0] in SPLITS}
    if left := len(names) - len(places):
        say(f"{origin}: {left} pictures outside train/ and valid/ left out")
    return places


def _common_folder(names: list[str]) -> str:
    """The folders in which an archive holds everything, with a final `/`; a split is none of them."""
    above = ""
    while len(tops := {name.removeprefix(above).partition("/")[:2] for name in names}) == 1:
        top, slash = tops.pop()
        if not slash or top in SPLITS:
            break
        above += top + slash
    return above


def _copy_s3(url: str, folder: Path) -> list[str]:
    """The pictures below an S3 prefix into `folder`; their names. Credentials and endpoint are those of the AWS CLI."""
    try:
        import s3fs
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise OwnPicturesError(f"{url}: S3 needs the extra `s3`: pip install 'loupe[s3]'") from None
    prefix = url.removeprefix("s3://").rstrip("/")
    try:
        store = s3fs.S3FileSystem(skip_instance_cache=True)
        found = {key: int(facts["size"] or 0) for key, facts in store.find(prefix, detail=True).items()}
        below = [key for key in found if key.startswith(f"{prefix}/") and key != f"{prefix}/"]
        safe = {safe_name(key.removeprefix(f"{prefix}/"), url): key for key in below}
        names = {name: key for name, key in safe.items() if is_picture(name)}
        require_space([(folder, sum(found[key] for key in names.values()))])
        for name, key in names.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            store.get_file(key, str(folder / name))
            if (folder / name).stat().st_size != found[key]:
                raise OwnPicturesError(f"s3://{key}: came only in part; run again")
    except (OSError, BotoCoreError, ClientError) as error:
        raise OwnPicturesError(f"{url}: {error}; check the address, the credentials and AWS_ENDPOINT_URL") from None
    return sorted(names)
