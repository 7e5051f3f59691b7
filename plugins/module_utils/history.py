"""What is remembered about an app's releases on one host, and what follows from it. Pure: nothing here touches a host.

`line` is what an undo history is in an editor: the releases in the order in which they went live. Going back moves
along it and keeps it; a deploy drops what lies ahead of the live release and adds the new one at the end. So going back
twice goes two back, going forward again is possible, and after a deploy "the one before" is the one that was live.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


class NoTargetError(Exception):
    """There is no release to go to; the message says why, and what to do."""


@dataclass
class History:
    """The memory of an app on one host.

    Attributes:
        line: releases in the order in which they went live, without bad ones.
        bad: {release: why it was undone}; forgotten when it goes live after all.
        pending: a switch that has not been confirmed: {"release": name, "previous": name or "", "forward": whether
            it is a deploy}; empty otherwise.
        warm: a release that is kept up without traffic, or "".
        lived: {release: {"at": when it last went live, UTC in ISO 8601, "by": who did it}}.
    """

    line: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    pending: dict[str, Any] = field(default_factory=dict)
    warm: str = ""
    lived: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, stored: Mapping[str, Any], live: str) -> History:
        """Return the history that was stored, made to agree with the link: what the link says is live is live."""
        history = cls(**stored)
        if live and live not in history.line and history.pending.get("release") != live:
            history.line.append(live)
        return history

    def stored(self) -> dict[str, Any]:
        """Return what read() takes."""
        return asdict(self)

    def begin(self, name: str, previous: str, forward: bool) -> None:
        """Note a switch before it is made, so that whoever finds it half done knows what was under way."""
        self.pending = {"release": name, "previous": previous, "forward": forward}

    def confirm(self, at: str, by: str) -> None:
        """Take the pending switch for good.

        Args:
            at: when, UTC in ISO 8601.
            by: who did it.
        """
        if not self.pending:
            return
        name, previous = self.pending["release"], self.pending["previous"]
        if self.pending["forward"] or name not in self.line:
            behind = self.line[: self.line.index(previous) + 1] if previous in self.line else []
            self.line = [*(release for release in behind if release != name), name]
        self.bad.pop(name, None)
        self.lived[name] = {"at": at, "by": by}
        self.pending = {}

    def undo(self, why: str) -> None:
        """Give the pending switch up: its release is bad, and no longer one that can be gone back to."""
        if not self.pending:
            return
        name = self.pending["release"]
        self.bad[name] = why
        self.line = [release for release in self.line if release != name]
        self.pending = {}

    def behind(self, live: str, there: Collection[str]) -> list[str]:
        """Return the good releases before the live one, the nearest first.

        Args:
            live: the live release.
            there: the releases that are whole on this host.
        """
        line = self.line[: self.line.index(live)] if live in self.line else self.line
        return [name for name in reversed(line) if name in there and name not in self.bad and name != live]

    def before(self, live: str, there: Collection[str]) -> str:
        """Return the last good release before the live one, or ""."""
        return next(iter(self.behind(live, there)), "")

    def targets(self, live: str, there: Collection[str], name: str = "") -> list[str]:
        """Return the releases that a rollback may go to, the best first.

        Args:
            live: the live release, "" if there is none.
            there: the releases that are whole on this host.
            name: the release that was asked for, "" for the last good one before the live one.

        Raises:
            NoTargetError: it is not there, or there is no good one before the live one.
        """
        others = ", ".join(sorted(set(there) - {live})) or "none"
        if name and name not in there:
            raise NoTargetError(f"Release {name} is not on this host. Releases to go to: {others}.")
        targets = [name] if name else self.behind(live, there)
        if not targets:
            raise NoTargetError(
                f"There is no good release before the live one ({live or 'none is live'}). "
                f"Other releases on this host: {others}. Name one to go to it all the same: -e release_to=NAME."
            )
        return targets

    def prunable(self, live: str, built: Mapping[str, str], keep: int, left: str = "") -> list[str]:
        """Return the releases that may be removed, oldest first; never the live one and never the one before it.

        Args:
            live: the live release.
            built: {release: when it was built, UTC in ISO 8601} of those that are whole on this host.
            keep: how many stay, those that were live most recently first.
            left: the release that visitors came from at the last switch: its static files are still asked for.
        """
        stays = {live, left, self.warm, self.before(live, built), *map(self.pending.get, ("release", "previous"))}

        def age(name: str) -> str:
            return max(built[name], self.lived.get(name, {}).get("at", ""))

        kept = sorted(built, key=lambda name: (name in stays, name not in self.bad, age(name)), reverse=True)[:keep]
        return sorted(set(built) - set(kept) - stays, key=age)

    def forget(self, name: str) -> None:
        """Forget a release that is no longer there."""
        self.line = [release for release in self.line if release != name]
        self.bad.pop(name, None)
        self.lived.pop(name, None)
