"""What an app's history remembers, and what follows from it: where a rollback goes, and what may be removed."""

from __future__ import annotations

import json

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils.history import History, NoTargetError

AT, BY = "2026-11-24T10:00:00Z", "you@laptop"


class Walk:
    """A history with the link that goes with it."""

    def __init__(self, *deploys: str) -> None:
        """Deploy these, one after the other."""
        self.history, self.live, self.there = History(), "", set[str]()
        for name in deploys:
            self.deploy(name)

    def _go(self, name: str, forward: bool) -> None:
        self.history = History.read(json.loads(json.dumps(self.history.stored())), self.live)
        self.history.begin(name, self.live, forward)
        self.live = name
        self.history.confirm(AT, BY)

    def deploy(self, name: str) -> None:
        """Put a release live by a deploy."""
        self.there.add(name)
        self._go(name, forward=True)

    def back(self, name: str = "") -> str:
        """Put a release live by a rollback, and return which."""
        self._go(self.history.targets(self.live, self.there, name)[0], forward=False)
        return self.live

    def fail(self, name: str, forward: bool = True) -> None:
        """Put a release live and undo it."""
        self.there.add(name)
        self.history.begin(name, self.live, forward)
        self.history.undo("it was broken")


def test_twice_back_is_two_back() -> None:
    """Each rollback goes one further back; at the end of the line it is refused."""
    walk = Walk("a", "b", "c")
    assert (walk.back(), walk.back()) == ("b", "a")
    with pytest.raises(NoTargetError, match=r"no good release before the live one \(a\).*b, c"):
        walk.back()


def test_the_nearest_is_the_first_of_the_targets() -> None:
    """Where hosts have different pasts, one further back may be the one that all have."""
    assert Walk("a", "b", "c").history.targets("c", {"a", "b", "c"}) == ["b", "a"]


def test_forward_by_name_and_back_again() -> None:
    """Going back keeps what lies ahead."""
    walk = Walk("a", "b", "c")
    walk.back("a")
    assert walk.back("c") == "c"
    assert walk.back() == "b"


def test_a_deploy_drops_what_was_gone_back_from() -> None:
    """After a, b, c, back to a, and d, the release before d is a: b and c were left on purpose."""
    walk = Walk("a", "b", "c")
    walk.back("a")
    walk.deploy("d")
    assert walk.back() == "a"
    assert walk.back("c") == "c", "by its name it can still be gone to"


def test_a_known_release_that_is_deployed_again_is_the_newest() -> None:
    """Deploying what was live before puts it at the end of the line, once."""
    walk = Walk("a", "b", "a")
    assert walk.history.line == ["b", "a"]
    assert walk.back() == "b"


def test_a_bad_release_is_skipped_until_it_goes_live() -> None:
    """What was undone is no place to go back to; by its name it is, and then it is good again."""
    walk = Walk("a", "b")
    walk.fail("c")
    assert walk.history.bad == {"c": "it was broken"}
    walk.deploy("d")
    assert walk.history.before(walk.live, walk.there) == "b"
    walk.fail("b", forward=False)
    assert walk.history.before(walk.live, walk.there) == "a"
    walk.back("b")
    assert "b" not in walk.history.bad
    assert walk.history.line == ["a", "d", "b"]


def test_what_is_gone_is_no_target() -> None:
    """A release that was removed from the host is skipped, and refused by its name."""
    walk = Walk("a", "b", "c")
    walk.there.remove("b")
    assert walk.history.targets(walk.live, walk.there) == ["a"]
    with pytest.raises(NoTargetError, match=r"^Release b is not on this host\. Releases to go to: a\.$"):
        walk.back("b")


def test_nothing_was_ever_live() -> None:
    """On a bare host there is nowhere to go."""
    with pytest.raises(NoTargetError, match="none is live"):
        History.read({}, "").targets("", {})


def test_the_link_is_right_when_the_memory_is_not() -> None:
    """A live release that nobody remembers is taken into the line; one that is not confirmed yet is not."""
    assert History.read({}, "a").line == ["a"]
    pending = History()
    pending.begin("a", "", forward=True)
    assert History.read(pending.stored(), "a").line == []


def test_pruning_keeps_the_most_recent_and_never_the_live_one_or_the_one_before() -> None:
    """Age is when a release was last live; bad ones go first."""
    walk = Walk(*"abcde")
    for number, name in enumerate("abcde"):
        walk.history.lived[name]["at"] = f"2026-11-24T10:0{number}:00Z"
    built = dict.fromkeys("abcde", "2026-11-24T09:00:00Z")
    assert walk.history.prunable("e", built, 3) == ["a", "b"]
    walk.back("b")
    assert walk.history.prunable("b", built, 2) == ["c", "d", "e"], "a is the one before b"
    assert walk.history.prunable("b", built, 2, "e") == ["c", "d"], "visitors came from e"
    walk.fail("f")
    assert walk.history.prunable("b", {**built, "f": "2026-11-24T11:00:00Z"}, 5) == ["f"]


def test_a_warm_release_is_not_pruned() -> None:
    """It is up."""
    walk = Walk(*"abcd")
    walk.history.warm = "a"
    assert walk.history.prunable("d", dict.fromkeys("abcd", AT), 2) == ["b"]


def test_what_is_forgotten_leaves_no_trace() -> None:
    """Its place in the line, its fault and its times go with it."""
    walk = Walk("a", "b")
    walk.fail("c")
    walk.history.forget("a")
    walk.history.forget("c")
    assert (walk.history.line, walk.history.bad, set(walk.history.lived)) == (["b"], {}, {"b"})
