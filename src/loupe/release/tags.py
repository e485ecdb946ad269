"""The git-side record: annotated tags as GTO writes them, so that `gto show` and `dvc artifacts get` know our versions.

    rdn-x2@v1.4.0          this commit reproduces version 1.4.0
    rdn-x2#production#7    the seventh move of the alias: to the version of this commit

They are made by git itself: GTO's own functions take the time of now, but a tag that is mended must carry the time of
its event, or GTO, which orders by it, would show another version in production. The store decides what is true; tags
can always be made anew from it.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from loupe import git
from loupe.release.versions import NUMBER, Event, RegistryError, Version

ARTIFACT = "rdn-x2"  # the name of the model in GTO's tags and in dvc.yaml


@dataclass(frozen=True)
class Tags:
    """The tags of a git repository.

    repo: a folder in it. artifact: the model's name.
    """

    repo: Path
    artifact: str = ARTIFACT

    def commit(self, revision: str = "HEAD") -> str:
        """The id of a commit.

        Raises:
            RegistryError: there is none, or no repository.
        """
        return self._git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").strip()

    def has_commit(self, commit: str) -> bool:
        """Whether this clone knows a commit."""
        try:
            return self.commit(commit) == commit
        except RegistryError:
            return False

    def uncommitted(self) -> list[str]:
        """Tracked files that differ from the commit."""
        lines = self._git("status", "--porcelain", "--untracked-files=no", "-z").split("\0")
        return [line[3:] for line in lines if line[2:3] == " "]

    def versions(self) -> dict[str, str]:
        """The commits of all versions that are registered here, by number."""
        found = ((re.fullmatch(rf"{re.escape(self.artifact)}@v({NUMBER})", tag), to) for tag, to in self._all().items())
        return {match[1]: commit for match, commit in found if match}

    def moves(self, alias: str) -> dict[int, str]:
        """The commits that an alias was moved to, by the number of the move."""
        found = (
            (re.fullmatch(rf"{re.escape(self.artifact)}#{re.escape(alias)}#(\d+)", tag), to)
            for tag, to in self._all().items()
        )
        return {int(match[1]): commit for match, commit in found if match}

    def check_free(self, version: str, commit: str, move: str = "") -> None:
        """Check that a commit can be registered as a version: GTO knows one version a commit, and no second meaning.

        Args:
            version: its number.
            commit: what reproduces it.
            move: a tag that must not be there, from `move_tag`.

        Raises:
            RegistryError: the commit is another version, or the version another commit; or the tag is there.
        """
        known = self.versions()
        if known.get(version, commit) != commit or move in self._all():
            raise RegistryError(
                f"{self.repo}: has a tag {move if move in self._all() else self.version_tag(version)} that this store "
                "knows nothing of; the tags of a repository belong to one store, and nothing is registered twice"
            )
        others = [number for number, at in known.items() if at == commit and number != version]
        if others:
            raise RegistryError(
                f"commit {commit[:12]} is version {others[0]} already, and reproduces that; commit what made this "
                "bundle (dvc.lock, params.yaml, metrics), then promote again"
            )

    def register(self, version: Version) -> bool:
        """Make the tag of a version; False if it is there already. Raises RegistryError, see `check_free`."""
        if self.versions().get(version.version) == version.commit:
            return False
        self.check_free(version.version, version.commit)
        message = f"{self.artifact} {version.version}, bundle {version.identity}"
        tag = self.version_tag(version.version)
        return self._make(tag, version.commit, message, version.by, version.registered_at)

    def assign(self, event: Event, version: Version) -> bool:
        """Make the tag of a move to a version; False if it is there already. Raises RegistryError."""
        came = f" from {event.previous}" if event.previous else ""
        message = f"{event.event} {event.version} to {event.alias}{came}" + (
            f": {event.reason}" if event.reason else ""
        )
        return self._make(
            self.move_tag(event.alias, event.generation), version.commit, message, event.by, event.moved_at
        )

    def version_tag(self, version: str) -> str:
        """Such as rdn-x2@v1.4.0."""
        return f"{self.artifact}@v{version}"

    def move_tag(self, alias: str, generation: int) -> str:
        """Such as rdn-x2#production#7."""
        return f"{self.artifact}#{alias}#{generation}"

    def _all(self) -> dict[str, str]:
        """Commits by annotated tag."""
        lines = self._git("for-each-ref", "--format=%(refname:strip=2)%09%(*objectname)", "refs/tags").splitlines()
        return dict(line.split("\t") for line in lines if not line.endswith("\t"))

    def _make(self, tag: str, commit: str, message: str, by: str, moment: str) -> bool:
        known = self._all().get(tag)
        if known == commit:
            return False
        if known is not None:
            raise RegistryError(
                f"{tag}: names commit {known[:12]}, but the store says {commit[:12]}; is it made by hand, or is this "
                f"the repository of another store? `git tag --delete '{tag}'` and `loupe registry verify` mend it"
            )
        if not self.has_commit(commit):
            raise RegistryError(
                f"{tag}: its commit {commit[:12]} is not in {self.repo}; `git fetch`, then verify again"
            )
        self._git("tag", "--annotate", "--no-sign", f"--message={message}", "--", tag, commit, by=by, moment=moment)
        return True

    def _git(self, *arguments: str, by: str = "", moment: str = "") -> str:
        environment = git.environment()
        if by:
            # The same event gives the same tag in every clone, byte for byte: nothing of this machine may be in it.
            environment |= {
                "GIT_COMMITTER_NAME": by,
                "GIT_COMMITTER_EMAIL": "loupe@localhost",
                "GIT_COMMITTER_DATE": moment,
            }
        command = ["git", "-C", str(self.repo), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        except FileNotFoundError:
            raise RegistryError("git is not installed; a version's record is a git tag") from None
        if done.returncode != 0:
            raise RegistryError(f"{self.repo}: git {arguments[0]}: {done.stderr.strip() or 'failed'}")
        return done.stdout
