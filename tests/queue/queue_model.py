"""The rules of the queue in plain Python: what is known of every query, and the status
that a call must get.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_SKIPS = 2


@dataclass
class Known:
    """What the rules say about one query."""

    number: int
    want: int
    state: str = "pending"
    got: int = 0
    tokens: list[str] = field(default_factory=list)  # labeler of token 1, 2, ...
    holder: int = 0  # token of the present lease, 0 without one
    given: dict[tuple[str, int], str] = field(default_factory=dict)
    rev: dict[str, int] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)  # labeler -> how
    undone: dict[str, tuple[int, int]] = field(default_factory=dict)  # labeler -> rev, token
    skipped: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    def lend(self, labeler: str) -> int:
        self.tokens.append(labeler)
        self.state, self.holder = "leased", len(self.tokens)
        return self.holder

    def back(self) -> None:
        self.state, self.holder = "pending", 0

    def held_by(self, labeler: str) -> bool:
        return self.holder > 0 and self.tokens[self.holder - 1] == labeler


class Model:
    """What was done so far, and what comes of one more call."""

    known: dict[str, Known]
    issued: list[tuple[str, int]]
    log: list[tuple[str, str, str]]
    present: set[str]
    admitted: int
    dropped: int

    def leased(self, recent: int, another: bool) -> tuple[str, int, str]:
        """A query, one of the tokens ever issued, and who shows it."""
        query, token = self.issued[-1 - recent % len(self.issued)]
        labeler = self.known[query].tokens[token - 1]
        return query, token, labeler if not another else "bob" if labeler == "ann" else "ann"

    def _answered(self, query: str, labeler: str, *, token: int, answer: str, rev: int) -> str:
        known = self.known.get(query)
        if known is None:
            return "gone"
        if known.tokens[token - 1 : token] != [labeler]:
            return "denied"
        if (labeler, rev) in known.given:
            return "same" if known.given[labeler, rev] == answer else "conflict"
        if labeler in known.live or rev != known.rev.get(labeler, 0) + 1:
            return "conflict"
        over = known.state in ("done", "dropped")
        how = "extra" if over else "ok" if known.holder == token else "late"
        known.given[labeler, rev], known.rev[labeler], known.live[labeler] = answer, rev, how
        known.seen.add(labeler)
        self.present.add(labeler)
        self.log.append(("answer", query, labeler))
        if how != "extra":
            known.got += 1
            if known.got >= known.want:
                known.state, known.holder = "done", 0
            elif known.held_by(labeler):
                known.back()
        return how

    def _skipped(self, query: str, labeler: str, token: int) -> str:
        known = self.known.get(query)
        if known is None:
            return "gone"
        if known.tokens[token - 1 : token] != [labeler]:
            return "denied"
        if labeler in known.skipped:
            return "same"
        if labeler in known.live:
            return "denied"
        if known.state in ("done", "dropped"):
            return "gone"
        known.skipped.add(labeler)
        known.seen.add(labeler)
        self.present.add(labeler)
        self.log.append(("skip", query, labeler))
        if known.held_by(labeler):
            known.back()
        if len(known.skipped) >= min(MAX_SKIPS, len(self.present)) and known.state == "pending":
            self._dropped(query)
        return "ok"

    def _undone(self, query: str, labeler: str, rev: int) -> tuple[str, int | None]:
        known = self.known.get(query)
        if known is None:
            return "no", None
        if known.rev.get(labeler) != rev:
            return "no", None
        if labeler in known.undone and known.undone[labeler][0] == rev:
            return "same", known.undone[labeler][1]
        if labeler not in known.live:
            return "no", None
        if known.live.pop(labeler) == "extra":
            known.tokens.append(labeler)
        else:
            known.got -= 1
            known.lend(labeler)
        known.undone[labeler] = rev, len(known.tokens)
        self.issued.append((query, len(known.tokens)))
        known.seen.discard(labeler)
        self.present.add(labeler)
        self.log.append(("retract", query, labeler))
        return "ok", len(known.tokens)

    def _dropped(self, query: str) -> None:
        known = self.known[query]
        known.holder = 0
        if known.got:
            known.state = "done"
            return
        known.state = "dropped"
        self.dropped += 1
        self.log.append(("drop", query, ""))
